"""Load: requests for one row each, over HTTP, and how long their answers take.

`ask` has clients that wait for an answer before they ask again (a closed loop): it finds how much
a service can do. `offer` sends at a given rate, whether or not there have been answers (an open
loop): it finds how long people wait at that rate. With clients that wait, a slow answer would hold
back the requests that would have met the same (Schroeder et al. 2006, Open versus closed).
"""

import asyncio
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.errors import ServiceBusy

WARM_UP_SHARE = 0.2
"""Of the time under load, what passes before answers count."""
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
URL = re.compile(r"http://\S+")
STOP_SECONDS = 30.0
LAST_ANSWERS_SECONDS = 60.0
"""How long `offer` waits for answers after its last request."""
REUSE_SECONDS = 15.0
"""A connection idle for longer is not used again, as with aiohttp: a service may be closing it."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Load:
    """What so many clients at once met: milliseconds of each answer, and how many had none."""

    clients: int
    """Of an open loop: requests that waited at once, at most."""
    seconds: float
    milliseconds: list[float] = field(default_factory=list)
    refused: int = 0
    """Answers of any status but 200."""
    told_when: int = 0
    """Of those, the ones with status 503 that say when to come again."""
    lost: int = 0
    """Requests of an open loop that got no answer at all."""

    @property
    def rows_per_s(self) -> float:
        """Rows answered in a second by the service."""
        return len(self.milliseconds) / self.seconds


@dataclass(frozen=True)
class Loaded:
    """What clients met at one load; None where no answer came."""

    clients: int
    rows_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    answers: int
    refused: int


@dataclass(frozen=True)
class Speed:
    """How fast a release is here: in process, many rows at once, and over HTTP, row by row."""

    release: str
    cores: int
    rows: int
    engine_rows_per_s: float
    loads: list[Loaded]
    peak_memory_bytes: int | None
    cost_of_million: float
    """At the engine's rate, in the currency of [cost] core_hour."""
    core_hour: float


@dataclass(frozen=True)
class Request:
    """A POST, as it goes over the wire."""

    host: str
    port: int
    bodies: Sequence[bytes]

    @classmethod
    def to(
        cls,
        url: str,
        path: str,
        documents: Sequence[bytes],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> "Request":
        """One for each JSON document."""
        parts = urlsplit(url)
        host, port = str(parts.hostname), int(parts.port or 80)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        bodies = [
            f"{head}Content-Length: {len(document)}\r\n\r\n".encode() + document
            for document in documents
        ]
        return cls(host, port, bodies)


@dataclass(frozen=True)
class Answer:
    """What an answer's head says."""

    status: bytes
    has_retry_after: bool

    def count(self, found: Load, milliseconds: float) -> None:
        """Add the answer to what was met."""
        if self.status == b"200":
            found.milliseconds.append(milliseconds)
        else:
            found.refused += 1
            found.told_when += self.status == b"503" and self.has_retry_after


def ask(request: Request, clients: int, seconds: float) -> Load:
    """Have so many clients ask for so long, after a warm-up; each row in its turn."""
    found = Load(clients, seconds)
    asyncio.run(_all(request, found))
    return found


async def _all(request: Request, found: Load) -> None:
    began = perf_counter()
    counted = began + WARM_UP_SHARE * found.seconds
    numbers = count()
    ends = counted + found.seconds
    clients = [_client(request, numbers, found, counted, ends) for _ in range(found.clients)]
    await asyncio.gather(*clients)


async def _client(
    request: Request, numbers: "count[int]", found: Load, counted: float, ends: float
) -> None:
    reader, writer = await asyncio.open_connection(request.host, request.port)
    try:
        while (asked := perf_counter()) < ends:
            writer.write(request.bodies[next(numbers) % len(request.bodies)])
            answer = await _answer(reader)
            told = perf_counter()
            if counted <= told < ends:
                answer.count(found, 1000 * (told - asked))
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    """An answer, which is read whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    await reader.readexactly(int(length.group(1)) if length else 0)
    return Answer(head.split(b" ", 2)[1], b"\nretry-after:" in head.lower())


def offer(request: Request, rows_per_s: float, seconds: float, seed: int = 0) -> Load:
    """Send so many requests a second, at random times, for so long, after a warm-up.

    The times are those of a Poisson process, drawn from `seed`. An answer's milliseconds count
    from the moment its request was due, so that a late start is part of the waiting. A request
    whose connection breaks, or that has no answer a minute after the last was sent, is lost.
    """
    found = Load(0, seconds)
    asyncio.run(_Offer(request, found).run(due_times(rows_per_s, seconds, seed)))
    return found


def due_times(rows_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds; those below 0 are the warm-up.

    >>> [round(time, 2) for time in due_times(4, 1, seed=1)]
    [-0.16, 0.31, 0.67, 0.74, 0.91]
    """
    rng = random.Random(seed)  # noqa: S311 (no secret)
    due = -WARM_UP_SHARE * seconds
    while (due := due + rng.expovariate(rows_per_s)) < seconds:
        yield due


class _Offer:
    """Requests that are due at given times, over as many connections as it takes."""

    def __init__(self, request: Request, found: Load):
        self._request = request
        self._found = found
        self._idle: list[tuple[Connection, float]] = []
        self._waiting = 0

    async def run(self, times: Iterator[float]) -> None:
        """Send each request when it is due, then wait for the last answers."""
        began = perf_counter() + WARM_UP_SHARE * self._found.seconds
        tasks = set()
        for number, time in enumerate(times):
            await asyncio.sleep(max(0.0, began + time - perf_counter()))
            task = asyncio.create_task(self._one(number, began + time, time >= 0))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_ANSWERS_SECONDS)
            self._found.lost += len(late)
            for each in late:
                each.cancel()
        for (_, writer), _ in self._idle:
            writer.close()

    async def _one(self, number: int, due: float, counts: bool) -> None:
        self._waiting += 1
        self._found.clients = max(self._found.clients, self._waiting)
        try:
            answer = await self._answered(self._request.bodies[number % len(self._request.bodies)])
        except (OSError, EOFError):
            self._found.lost += 1
            return
        finally:
            self._waiting -= 1
        if counts:
            answer.count(self._found, 1000 * (perf_counter() - due))

    async def _answered(self, body: bytes) -> Answer:
        reader, writer = await self._connection()
        try:
            writer.write(body)
            answer = await _answer(reader)
        except BaseException:
            writer.close()
            raise
        self._idle.append(((reader, writer), perf_counter()))
        return answer

    async def _connection(self) -> Connection:
        while self._idle:
            (reader, writer), since = self._idle.pop()
            is_open = not reader.at_eof() and not writer.is_closing()
            if is_open and perf_counter() - since < REUSE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._request.host, self._request.port)


@contextmanager
def served(
    release: Path, options: Sequence[str] = (), dev: bool = True
) -> Iterator[tuple[str, int]]:
    """A release served by a process of its own; its URL and the process's number."""
    words = [sys.executable, "-m", "modelyard", "serve", str(release), "--port", "0", *options]
    words += ["--dev"] * dev
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        told = URL.search(server.stdout.readline())
        if not told:
            assert server.stderr is not None
            raise ServiceBusy(f"The release is not served: {server.stderr.read().strip()[:400]}")
        yield told.group(), server.pid
    finally:
        server.terminate()
        server.communicate(timeout=STOP_SECONDS)


def row_documents(rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The bodies of native requests for one row each; bytes go as base64."""
    import base64
    import json

    def told(value: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)

    return [json.dumps({"rows": [dict(row)]}, default=told).encode() for row in rows]
