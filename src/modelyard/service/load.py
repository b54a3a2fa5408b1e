"""Load: clients that ask for one row and wait for its answer, again and again, over HTTP."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.errors import ServiceBusy

WARM_UP_SHARE = 0.2
"""Of the time under load, what passes before answers count."""
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
URL = re.compile(r"http://\S+")
STOP_SECONDS = 30.0


@dataclass
class Load:
    """What so many clients at once met: milliseconds of each answer, and how many had none."""

    clients: int
    seconds: float
    milliseconds: list[float] = field(default_factory=list)
    refused: int = 0

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
    def to(cls, url: str, path: str, documents: Sequence[bytes]) -> "Request":
        """One for each JSON document."""
        parts = urlsplit(url)
        host, port = str(parts.hostname), int(parts.port or 80)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        bodies = [
            f"{head}Content-Length: {len(document)}\r\n\r\n".encode() + document
            for document in documents
        ]
        return cls(host, port, bodies)


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
            status = await _answer(reader)
            told = perf_counter()
            if not counted <= told < ends:
                continue
            if status == b"200":
                found.milliseconds.append(1000 * (told - asked))
            else:
                found.refused += 1
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The status of an answer, which is read whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    await reader.readexactly(int(length.group(1)) if length else 0)
    return head.split(b" ", 2)[1]


@contextmanager
def served(release: Path, options: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """A release served by a process of its own; its URL and the process's number."""
    words = [sys.executable, "-m", "modelyard", "serve", str(release), "--port", "0", *options]
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
