"""A server between a client and a service: it sees what passes, and fails where a test says so."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

DROP = "drop"
"""Close the connection without an answer."""
CUT = "cut"
"""Have the service answer, and close the connection in the middle of what it said."""
FORWARD = "forward"
OF_ONE_HOP = ("content-length", "connection", "date", "server")


@dataclass(frozen=True)
class Told:
    """What is answered in the service's place."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Fault = str | Told | Callable[[Any], object]


@dataclass
class Between:
    """What is to happen to requests, and those that have come."""

    service: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    """What happens to the next requests, one after the other."""
    by_body: dict[bytes, Fault] = field(default_factory=dict)
    """What happens to requests with these bytes."""
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    @property
    def keys(self) -> list[str | None]:
        return [each.headers.get("idempotency-key") for each in self.seen]


class Server(ThreadingHTTPServer):
    """Holds what its handlers share."""

    def __init__(self, told: Between, client: httpx.Client):
        super().__init__(("127.0.0.1", 0), Handler)
        self.told = told
        self.client = client
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        seen, told = Seen(self.command, self.path, headers, body), self.server.told
        with self.server.lock:
            told.seen.append(seen)
            fault = told.faults.pop(0) if told.faults else told.by_body.get(body, FORWARD)
        told.before()
        self.close_connection = self.close_connection or callable(fault) or fault in (DROP, CUT)
        if isinstance(fault, Told):
            self.say(fault, fault.body)
        elif callable(fault):
            fault(self)
        elif fault != DROP:
            self.forward(seen, fault == CUT)

    do_POST = do_GET  # noqa: N815 – as the library names it

    def forward(self, seen: Seen, is_cut: bool) -> None:
        """What the service says, or the first half of it."""
        own = {k: v for k, v in seen.headers.items() if k not in ("host", "connection")}
        got = self.server.client.request(seen.method, seen.path, headers=own, content=seen.body)
        passed = {name: value for name, value in got.headers.items() if name not in OF_ONE_HOP}
        body = got.content[: len(got.content) // 2] if is_cut else got.content
        self.say(Told(got.status_code, got.content, passed), body)

    def say(self, told: Told, body: bytes) -> None:
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(told.body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def between(service: str) -> Iterator[Between]:
    """The server, in threads of this process."""
    told = Between(service)
    with httpx.Client(base_url=service, timeout=20, trust_env=False) as client:
        server = Server(told, client)
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
