"""The client that waits where it is called."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from modelyard.client.calls import Calls, Row, batches, check_at_least_one
from modelyard.client.exchange import Attempt, Call, Outcome, Patience
from modelyard.client.http import service_url
from modelyard.client.messages import Response
from modelyard.client.refusals import no_answer
from modelyard.client.replies import Answer, Model, Prediction

Result = TypeVar("Result")


class Client:
    """Asks a service; may be used by several threads.

    An attempt takes at most `timeout_s`, from connecting to the answer's last byte; after it has
    failed, at most `retries` more are made, none of which ends more than `total_s` after the first
    began. `sleep` waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 5,
        total_s: float = 300.0,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self._calls = Calls(service_url(url), key, Patience(timeout_s, retries, total_s))
        self._sleep = sleep
        import httpx

        self._http = httpx.Client()

    def models(self) -> list[Model]:
        """The models of the service; raises ApiError."""
        return self._result(self._calls.models())

    def model(self, name: str) -> Model:
        """A model: its columns, labels and limits; raises ApiError."""
        return self._result(self._calls.model(name))

    def predict(
        self, name: str, rows: Iterable[Row], idempotency_key: str | None = None
    ) -> Prediction:
        """Answers for the rows of one request; raises ApiError.

        It is counted once, however often it had to be sent; with an idempotency key of your own
        also over several calls.
        """
        return self._result(self._calls.predict(name, rows, idempotency_key))

    def predict_many(
        self, name: str, rows: Iterable[Row], batch_rows: int = 64
    ) -> Iterator[Answer]:
        """An answer for each of any number of rows, in their order; raises ApiError.

        The rows of a request are taken when its turn comes, one request after the other.
        """
        check_at_least_one(batch_rows=batch_rows)
        return (
            answer
            for batch in batches(rows, batch_rows)
            for answer in self.predict(name, batch).predictions
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _result(self, call: Call[Result]) -> Result:
        try:
            attempt = next(call)
            while True:
                attempt = call.send(self._outcome(attempt))
        except StopIteration as ended:
            result: Result = ended.value
            return result

    def _outcome(self, attempt: Attempt) -> Outcome:
        """What comes of an attempt, in a thread of its own.

        httpx times each wait for the network by itself; all of them together are timed here.
        """
        if attempt.wait_s:
            self._sleep(attempt.wait_s)
        done: Future[Outcome] = Future()
        sent = partial(copy_context().run, self._sent, attempt)
        threading.Thread(target=_settle, args=(done, sent), daemon=True).start()
        try:
            return done.result(attempt.timeout_s)
        except TimeoutError as error:
            return no_answer(attempt.request, error)

    def _sent(self, attempt: Attempt) -> Outcome:
        import httpx

        request, body = attempt.request, bytearray()
        ends = time.monotonic() + attempt.timeout_s
        try:
            with self._http.stream(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                timeout=attempt.timeout_s,
            ) as got:
                for part in got.iter_bytes():
                    body += part
                    if time.monotonic() > ends:  # nobody waits for the rest any more
                        return no_answer(request, TimeoutError())
                return Response(got.status_code, got.headers, bytes(body))
        except httpx.RequestError as error:
            return no_answer(request, error)


def _settle(done: "Future[Outcome]", sent: Callable[[], Outcome]) -> None:
    try:
        done.set_result(sent())
    except BaseException as error:  # noqa: BLE001 – raised where it is waited for
        done.set_exception(error)
