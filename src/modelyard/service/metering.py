"""Metering: who asks, what is reserved for the request, and what it has come to.

Every route that answers rows goes through `Meter.answered`, of whatever family it is: the key is
looked up, `Visit.reserve` is called once the size of the request is known, and the record is on
disk before the answer leaves. What fails on our side is not counted.
"""

import asyncio
import hashlib
import json
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from modelyard.core.errors import KeyRefused, NotAllowed, RequestInvalid
from modelyard.core.project import Serve
from modelyard.ledger.contents import Content, content_of, is_kept
from modelyard.ledger.database import now_ms
from modelyard.ledger.directory import Caller, Directory
from modelyard.ledger.entries import (
    Claim,
    Demand,
    Entry,
    Kept,
    Record,
    Repeat,
    Reservation,
)
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import NOTHING, Limit, Usage, spend_micros
from modelyard.ledger.roles import Right, may
from modelyard.service.bodies import header
from modelyard.service.rate_headers import rate_headers
from modelyard.service.release_info import Column

Answer = Callable[[Request], Awaitable[Response]]
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
READ_BY = (b"content-type", b"content-encoding", b"inference-header-content-length")
"""Headers by which a body is read: with another of them the same bytes are another request."""
KEPT_HEADERS = ("content-type", "inference-header-content-length")
REQUEST_ID = "X-Request-Id"
RAW_ID = REQUEST_ID.lower().encode()
SOON_SECONDS = 0.2
"""After so long a key is looked up again, as it may have been revoked meanwhile."""
VISIT = "modelyard.visit"
CALLER = "modelyard.caller"
"""Names of what a request carries with it."""
_IDS = random.Random(secrets.token_bytes(16))  # noqa: S311 – unlike any other, and no secret


@dataclass(slots=True)
class Visit:
    """A request of a customer, from its key to its record."""

    caller: Caller
    look_up: Callable[[], Awaitable[Caller]]
    """Who asks as it is by now: a body may take a minute to come."""
    route: str
    ledger: Ledger
    repeat: Callable[[], Repeat | None]
    release: str = ""
    version: str = ""
    usage: Usage = NOTHING
    queue_us: int = 0
    reservation: Reservation | None = None
    content: Content | None = None
    began: float = field(default_factory=time.perf_counter)
    id: str = field(default_factory=lambda: f"req_{_IDS.getrandbits(64):016x}")

    def ask(self, release: str, version: str) -> None:
        """Say which release is asked, once it is known that it may be."""
        self.release, self.version = release, version

    async def reserve(self, usage: Usage) -> None:
        """Reserve what will be used.

        Raises KeyRefused, NotAllowed, LimitReached, RequestRepeated, Repeated, LedgerAway.
        """
        if time.perf_counter() - self.began > SOON_SECONDS:
            self.caller = await self.look_up()
            self.ask(self.release, self.version)
        priced = self._priced(usage)
        demands = tuple(_demand(each, priced) for each in self.caller.limits)
        repeat = self.repeat()
        if not demands and not repeat:
            return
        found = await self.ledger.reserve(Claim(demands, repeat))
        if isinstance(found, Kept):
            raise Repeated(found)
        self.reservation = found

    def settle(self, usage: Usage, queue_us: int) -> None:
        """Say what was used; it counts once the answer is ready."""
        self.usage, self.queue_us = self._priced(usage), queue_us

    async def keep(
        self,
        kept: Serve,
        columns: Sequence[Column],
        rows: Sequence[Mapping[str, Any]],
        answers: Sequence[Any] | None,
    ) -> None:
        """Keep rows and answers, where the project says so of a request with this id."""
        if kept.keep and is_kept(self.id, kept.keep):
            pictures = {column.name for column in columns if column.is_binary}
            self.content = await asyncio.to_thread(content_of, kept, rows, answers, pictures)

    def entry(self, outcome: str, status: int, kept: Kept | None = None) -> Entry:
        """What is written of it; only what was answered has used anything."""
        caller = self.caller
        record = Record(
            id=self.id,
            at_ms=now_ms(),
            organisation_id=caller.organisation_id or "",
            project_id=caller.project_id or "",
            key_id=caller.key_id,
            release=self.release,
            version=self.version,
            route=self.route,
            outcome=outcome,
            status=status,
            usage=self.usage if outcome == "answered" else NOTHING,
            latency_us=int(1e6 * (time.perf_counter() - self.began)),
            queue_us=self.queue_us,
        )
        content = self.content if outcome == "answered" else None
        return Entry(record, self.reservation, kept, content)

    def _priced(self, usage: Usage) -> Usage:
        prices = self.caller.prices_of(self.release)
        return usage._replace(spend_micros=spend_micros(usage, prices)) if prices else usage


class Repeated(Exception):
    """The request has been answered before."""

    def __init__(self, kept: Kept):
        self.kept = kept
        super().__init__()


class Meter:
    """The one way from a customer's request to its answer."""

    def __init__(self, directory: Directory, ledger: Ledger):
        self._directory = directory
        self._ledger = ledger

    @property
    def is_away(self) -> bool:
        """Whether nothing can be counted now, and so nothing answered."""
        return self._directory.is_away or self._ledger.is_away

    @property
    def engine(self) -> Engine:
        """The ledger's database."""
        return self._ledger.engine

    async def caller(self, request: Request, right: Right) -> Caller:
        """Who asks; raises KeyRefused, NotAllowed, LedgerAway."""
        text = _key_in(request)
        found = self._directory.remembered(text)
        if found is None:
            found = await self._directory.looked_up(text)
        if not may(found.role, right):
            raise NotAllowed(f"The key is of the role {found.role}, which may not do this.")
        return found

    async def answered(self, route: str, answer: Answer, request: Request) -> Response:
        """The answer to a request for rows, once it is counted; raises what refuses it."""
        caller = await self.caller(request, "predict")
        key = _idempotency_key(request)
        repeat: Callable[[], Repeat | None] = _none
        if key:
            digest, scope = _Digest(request), caller.project_id or caller.key_id
            request = Request(request.scope, digest.receive)
            repeat = lambda: Repeat(scope, key, digest.of_body())  # noqa: E731
        look_up = partial(self.caller, request, "predict")
        visit = request.scope[VISIT] = Visit(caller, look_up, route, self._ledger, repeat)
        try:
            response = await answer(request)
            entry = _entry(visit, response, is_kept=bool(key))
        except Repeated as repeated:
            return _again(repeated.kept)
        except BaseException as error:
            self._ledger.note(visit.entry(*_ended(error)))
            raise
        await self._ledger.settle(entry)
        standings = visit.reservation.standings if visit.reservation else ()
        response.raw_headers.append((RAW_ID, visit.id.encode()))
        response.raw_headers += rate_headers(standings)
        return response


def _none() -> None:
    return None


class _Digest:
    """A request's digest, taken while its body is read."""

    def __init__(self, request: Request):
        self._receive: Receive = request.receive
        self._sum = hashlib.sha256()
        told = (header(request, name) or "" for name in READ_BY)
        for part in (request.method, request.scope["path"], *told):
            self._sum.update(part.encode() + b"\0")

    async def receive(self) -> Message:
        """The next part of the body."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._sum.update(message.get("body", b""))
        return message

    def of_body(self) -> bytes:
        """Of what was read."""
        return self._sum.digest()


def _key_in(request: Request) -> str:
    kind, _, text = (header(request, b"authorization") or "").partition(" ")
    if kind.lower() != "bearer" or not text.strip():
        raise KeyRefused("The request has no key; send it as `Authorization: Bearer KEY`.")
    return text.strip()


def _idempotency_key(request: Request) -> str | None:
    found = header(request, b"idempotency-key")
    if found is not None and not IDEMPOTENCY_KEY.fullmatch(found):
        raise RequestInvalid(
            "The Idempotency-Key has 1 to 255 printable characters of ASCII without spaces; use a "
            "UUID, for one."
        )
    return found


def _demand(limit: Limit, usage: Usage) -> Demand:
    now_s = now_ms() / 1000
    amount, resets_in_s = usage.of(limit.measure), limit.resets_in_s(now_s)
    comes = None if amount > limit.amount else resets_in_s  # more than fits will never fit
    return Demand(limit, limit.window_s(now_s), amount, comes)


def _ended(error: BaseException) -> tuple[str, int]:
    """The outcome and status of a request that has no answer."""
    from modelyard.service.problems import CLIENT_GONE, Refusals, status_of

    if not isinstance(error, Exception):
        return "gone", CLIENT_GONE
    status = status_of(error)
    if status == CLIENT_GONE:
        return "gone", status
    return ("refused" if Refusals.is_known(error) else "failed"), status


def _entry(visit: Visit, response: Response, *, is_kept: bool) -> Entry:
    outcome = "refused" if response.status_code >= 400 else "answered"
    return visit.entry(outcome, response.status_code, _kept(response, visit) if is_kept else None)


def _kept(response: Response, visit: Visit) -> Kept:
    head = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    told = json.dumps(head | {REQUEST_ID: visit.id})
    return Kept(response.status_code, told, bytes(response.body))


def _again(kept: Kept) -> Response:
    """The first answer, under the id that it was counted by."""
    headers = json.loads(kept.head) | {"Idempotency-Replayed": "true"}
    return Response(kept.body, kept.status, headers)
