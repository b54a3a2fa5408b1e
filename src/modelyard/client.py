"""The client: a service of Modelyard from Python, with and without asyncio.

A request that has no answer, or is told to come again, is sent again by itself, later each time by
chance (Brooker 2015, Exponential backoff and jitter) and never sooner than the service says. Each
sending carries the same idempotency key, so that it is answered once and counted once.
"""

import asyncio
import random
import time
import uuid
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.core.errors import ExtraMissing

if TYPE_CHECKING:
    import httpx

FIRST_WAIT_S = 0.2
MOST_WAIT_S = 20.0
AGAIN = frozenset((429, 500, 502, 503, 504))
BUSY = "is being answered"
Row = Mapping[str, Any]
Exchange = Generator["Sent | float", "Got | None", "Got"]
"""Yields what is to be sent, or seconds to wait; takes what came of it; ends with the answer."""


class ApiError(Exception):
    """What the service refuses, or cannot do: `status` 0 where there was no answer at all."""

    def __init__(self, status: int, code: str, detail: str, page: str, request_id: str):
        self.status, self.code, self.detail = status, code, detail
        self.page, self.request_id = page, request_id
        super().__init__(f"{status} {code}: {detail}" if status else detail)


class RequestRefused(ApiError):
    """A request that cannot be answered as it is (400, 404, 409, 413, 415, 422)."""


class KeyRefused(ApiError):
    """No key, or one that does not hold (401)."""


class NotAllowed(ApiError):
    """A key that may not do this (403)."""


class LimitReached(ApiError):
    """A limit of the key is reached (429)."""


class Unavailable(ApiError):
    """A service that is busy, broken or not there."""


@dataclass(frozen=True)
class Usage:
    """What a request used."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class Prediction:
    """Answers, in the order of the rows.

    `request_id` is what the request is counted by; `is_replayed` says that it had been answered
    before. `limits` is the header RateLimit: how much is left of each, and seconds until then.
    """

    model: str
    version: str
    predictions: list[dict[str, Any]]
    usage: Usage
    request_id: str
    is_replayed: bool
    limits: str


@dataclass(frozen=True)
class Model:
    """A model of the service."""

    name: str
    version: str
    description: str
    inputs: list[dict[str, str]]
    target: str
    labels: list[str]
    limits: dict[str, int]


@dataclass(frozen=True)
class Sent:
    """A request as it goes out."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Got:
    """An answer, or what stood in its way; `document` is None where it is no JSON object."""

    status: int
    document: Any
    headers: Mapping[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Patience:
    """How long a request is sent again: so many times, and for so many seconds in all."""

    retries: int = 5
    seconds: float = 120.0


def wait_s(tries: int, retry_after_s: float | None, chance: float) -> float:
    """How long to wait before a request is sent again; `chance` is from 0 to 1.

    >>> wait_s(0, None, 0.5), wait_s(3, 2.0, 0.25), wait_s(30, None, 1.0)
    (0.1, 2.4, 20.0)
    """
    most = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(tries, 30))
    return most * chance + (retry_after_s or 0.0)


def exchange(sent: Sent, patience: Patience, now: Callable[[], float]) -> Exchange:
    """What is done until there is an answer; raises ApiError."""
    ends = now() + patience.seconds
    tries = 0
    while True:
        got = yield sent
        assert got is not None
        if 200 <= got.status < 300 and isinstance(got.document, dict):
            return got
        again_s = _again_s(got)
        if again_s is None or tries >= patience.retries:
            raise _error(got)
        wait = wait_s(tries, again_s, random.random())  # noqa: S311 – no secret
        if now() + wait > ends:
            raise _error(got)
        yield wait
        tries += 1


def _again_s(got: Got) -> float | None:
    """Seconds to wait at least before it is sent again; None where that would not help."""
    told = got.headers.get("retry-after", "")
    seconds = float(told) if told.isdecimal() else None
    if got.status == 429:  # without a time, waiting does not help
        return seconds
    if got.status == 409 and BUSY in str(got.document):
        return 0.0
    return seconds or 0.0 if got.status == 0 or got.status in AGAIN else None


def _error(got: Got) -> ApiError:
    kinds = {401: KeyRefused, 403: NotAllowed, 429: LimitReached}
    kind = kinds.get(got.status, RequestRefused if 400 <= got.status < 500 else Unavailable)
    told = got.document if isinstance(got.document, dict) else {}
    detail = told.get("detail") or got.problem or "The answer is not one of this service."
    return kind(
        got.status,
        str(told.get("code", "")),
        str(detail),
        str(told.get("type", "")),
        got.headers.get("x-request-id", ""),
    )


class _Requests:
    """What both clients ask, and what they make of it."""

    def __init__(
        self, url: str, key: str | None = None, timeout_s: float = 60.0, retries: int = 5,
        retry_seconds: float = 120.0,
    ):  # fmt: skip
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout_s
        self._patience = Patience(retries, retry_seconds)

    def _get(self, path: str) -> Exchange:
        return exchange(Sent("GET", path, None, self._headers), self._patience, time.monotonic)

    def _predict(self, name: str, rows: Iterable[Row], idempotency_key: str | None) -> Exchange:
        headers = self._headers | {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"rows": [dict(row) for row in rows]}
        path = f"/v1/models/{quote(name, safe='@')}/predict"
        return exchange(Sent("POST", path, body, headers), self._patience, time.monotonic)


def _models(got: Got) -> list[Model]:
    return [_model(each) for each in got.document["models"]]


def _model(told: Mapping[str, Any]) -> Model:
    return Model(**{name: told[name] for name in Model.__dataclass_fields__})


def _prediction(got: Got) -> Prediction:
    told = got.document
    return Prediction(
        told["model"],
        told["version"],
        told["predictions"],
        Usage(told["usage"]["rows"], told["usage"]["tokens"]),
        got.headers.get("x-request-id", ""),
        got.headers.get("idempotency-replayed") == "true",
        got.headers.get("ratelimit", ""),
    )


def _parts(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    left = iter(rows)
    while part := list(islice(left, size)):
        yield part


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError:
        raise ExtraMissing(
            "The client needs httpx; install it with `pip install 'modelyard[client]'`."
        ) from None
    return httpx


def _got(response: "httpx.Response") -> Got:
    try:
        document = response.json()
    except ValueError:
        document = None
    return Got(response.status_code, document, response.headers)


class Client(_Requests):
    """A service, asked one request after the other."""

    sleep: Callable[[float], None] = staticmethod(time.sleep)

    def __enter__(self) -> "Client":
        """Open connections as they are needed."""
        self._http = _httpx().Client(base_url=self._url, timeout=self._timeout_s)
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._http.close()

    def models(self) -> list[Model]:
        """The models that the key may ask; raises ApiError."""
        return _models(self._done(self._get("/v1/models")))

    def model(self, name: str) -> Model:
        """A model; raises ApiError."""
        return _model(self._done(self._get(f"/v1/models/{quote(name, safe='@')}")).document)

    def predict(
        self, name: str, rows: Iterable[Row], idempotency_key: str | None = None
    ) -> Prediction:
        """Answers for rows, counted once however often they are sent; raises ApiError."""
        return _prediction(self._done(self._predict(name, rows, idempotency_key)))

    def predict_many(
        self, name: str, rows: Iterable[Row], batch_rows: int = 64
    ) -> Iterator[dict[str, Any]]:
        """Answers for rows of any number, one by one; raises ApiError."""
        for part in _parts(rows, batch_rows):
            yield from self.predict(name, part).predictions

    def _done(self, steps: Exchange) -> Got:
        step = next(steps)
        while True:
            got = None
            if isinstance(step, Sent):
                got = self._sent(step)
            else:
                self.sleep(step)
            try:
                step = steps.send(got)
            except StopIteration as end:
                answer: Got = end.value
                return answer

    def _sent(self, sent: Sent) -> Got:
        try:
            return _got(
                self._http.request(sent.method, sent.path, json=sent.body, headers=sent.headers)
            )
        except _httpx().TransportError as error:
            return Got(0, None, {}, f"{self._url} gave no answer: {error or type(error).__name__}")


class AsyncClient(_Requests):
    """A service, asked within asyncio."""

    sleep: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)

    async def __aenter__(self) -> "AsyncClient":
        """Open connections as they are needed."""
        self._http = _httpx().AsyncClient(base_url=self._url, timeout=self._timeout_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._http.aclose()

    async def models(self) -> list[Model]:
        """The models that the key may ask; raises ApiError."""
        return _models(await self._done(self._get("/v1/models")))

    async def model(self, name: str) -> Model:
        """A model; raises ApiError."""
        got = await self._done(self._get(f"/v1/models/{quote(name, safe='@')}"))
        return _model(got.document)

    async def predict(
        self, name: str, rows: Iterable[Row], idempotency_key: str | None = None
    ) -> Prediction:
        """Answers for rows, counted once however often they are sent; raises ApiError."""
        return _prediction(await self._done(self._predict(name, rows, idempotency_key)))

    async def predict_many(
        self, name: str, rows: Iterable[Row], batch_rows: int = 64, at_once: int = 4
    ) -> AsyncIterator[dict[str, Any]]:
        """Answers for rows of any number, in their order; raises ApiError.

        At most `at_once` requests are under way.
        """
        under_way: list[asyncio.Task[Prediction]] = []
        try:
            for part in _parts(rows, batch_rows):
                under_way.append(asyncio.create_task(self.predict(name, part)))
                if len(under_way) == at_once:
                    for each in (await under_way.pop(0)).predictions:
                        yield each
            while under_way:
                for each in (await under_way.pop(0)).predictions:
                    yield each
        finally:
            for task in under_way:
                task.cancel()

    async def _done(self, steps: Exchange) -> Got:
        step = next(steps)
        while True:
            got = None
            if isinstance(step, Sent):
                got = await self._sent(step)
            else:
                await self.sleep(step)
            try:
                step = steps.send(got)
            except StopIteration as end:
                answer: Got = end.value
                return answer

    async def _sent(self, sent: Sent) -> Got:
        request = self._http.request(sent.method, sent.path, json=sent.body, headers=sent.headers)
        try:
            return _got(await request)
        except _httpx().TransportError as error:
            return Got(0, None, {}, f"{self._url} gave no answer: {error or type(error).__name__}")
