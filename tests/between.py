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


@dataclass
class Between:
    """What is to happen to the next requests, one after the other, and what has come."""

    service: str
    url: str = ""
    faults: list[str | Told | Callable[[Any], None]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    @property
    def keys(self) -> list[str | None]:
        return [each.headers.get("idempotency-key") for each in self.seen]


def handler(between: Between, client: httpx.Client) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            seen = Seen(self.command, self.path, headers, body)
            with lock:
                between.seen.append(seen)
                fault = between.faults.pop(0) if between.faults else FORWARD
            between.before()
            if isinstance(fault, Told):
                self.say(fault, fault.body)
            elif callable(fault):
                fault(self)
                self.close_connection = True
            elif fault == DROP:
                self.close_connection = True
            else:
                self.forward(seen, fault == CUT)

        do_POST = do_GET

        def forward(self, seen: Seen, is_cut: bool) -> None:
            own = {k: v for k, v in seen.headers.items() if k not in ("host", "connection")}
            got = client.request(seen.method, seen.path, headers=own, content=seen.body)
            passed = {
                k: v
                for k, v in got.headers.items()
                if k not in ("content-length", "connection", "date", "server")
            }
            body = got.content[: len(got.content) // 2] if is_cut else got.content
            self.say(Told(got.status_code, got.content, passed), body)
            self.close_connection = self.close_connection or is_cut

        def say(self, told: Told, body: bytes) -> None:
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def between(service: str) -> Iterator[Between]:
    """The server, in threads of this process."""
    told = Between(service)
    with httpx.Client(base_url=service, timeout=20, trust_env=False) as client:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(told, client))
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
