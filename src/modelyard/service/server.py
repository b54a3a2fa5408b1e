"""The server: an app on a port until it is told to stop."""

import asyncio
import gc
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelyard.core.errors import SettingInvalid

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
MOST_HEAD_BYTES = 1 << 20
MOST_JOINED_BYTES = 1 << 16
MOST_PORT = 65_535
SWITCH_SECONDS = 0.0005
"""How long a thread goes on while another waits, as what settles does after each statement."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
Ready = Callable[[str], None]


class Joined:
    """A transport that sends what is written in one turn of the loop at once: head and body.

    Of a large answer each 64 KiB or more go out by themselves, so that what waits is bounded.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        """Send bytes, soon."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MOST_JOINED_BYTES:
            self._flush()

    def close(self) -> None:
        """Send what was written, then close; a connection that is gone gets nothing more."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting and not self._transport.is_closing():
            self._transport.write(b"".join(waiting))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that refuses a request whose head has no end; httptools itself sets no limit."""

    in_head = False
    head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self.transport: Any = Joined(transport, self.loop)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.in_head = True
        self.head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self.in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Some bytes come."""
        was_in_head = self.in_head
        super().data_received(data)
        if was_in_head and self.in_head and not self.transport.is_closing():
            self.head_bytes += len(data)
            if self.head_bytes > MOST_HEAD_BYTES:
                self.send_400_response("The request's head is too large.")


class Server(uvicorn.Server):
    """A server that says when it takes requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        self._ready()


@dataclass(frozen=True)
class Listening:
    """How clients reach the service.

    `certificate` and `private_key` are PEM files, for TLS. Of `proxies`, addresses that stand
    between, what they forward of a client's address is believed; of nobody else.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    proxies: tuple[str, ...] = ()
    grace_seconds: int = 60
    is_shared: bool = False


PLAINLY = Listening()


def serve(app: ASGIApp, host: str, port: int, ready: Ready, listening: Listening = PLAINLY) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in flight and return.

    `port` 0 takes a free one, and one that is shared is taken with others. `ready` gets the URL
    once requests are taken. Requests still unanswered `grace_seconds` after the signal are given
    up. Raises SettingInvalid where the address or the certificate cannot be used.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = configuration(app, listening)
    gc.collect()
    gc.freeze()  # what is loaded stays; to walk it anew would hold up every request
    with bound(host, port, listening.is_shared, listens=True) as listener:
        taken = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if listening.certificate else "http"
        server = Server(settings, lambda: ready(f"{scheme}://{shown}:{taken}"))
        with _stopped_by_signals(server):
            server.run([listener])


def configuration(app: ASGIApp, listening: Listening = PLAINLY) -> uvicorn.Config:
    """How uvicorn serves an app: httptools, uvloop where there is one, no logging of its own."""
    settings = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=bool(listening.proxies),
        forwarded_allow_ips=list(listening.proxies),
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.private_key,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=listening.grace_seconds,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingInvalid(
            f"The certificate {listening.certificate} with the key {listening.private_key} cannot "
            f"be used: {error.strerror or error}; give two PEM files that belong together."
        ) from None
    return settings


def bound(host: str, port: int, is_shared: bool = False, listens: bool = False) -> socket.socket:
    """A socket at an address, shared with others of this user or not; raises SettingInvalid."""
    if not 0 <= port <= MOST_PORT:
        raise SettingInvalid(f"--port takes 0 to {MOST_PORT}; got {port}.")
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        if listens:
            made.listen(BACKLOG)
    except (OSError, TypeError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        raise SettingInvalid(
            f"Cannot listen on {host!r} port {port}: {reason}; choose another with "
            "--host and --port."
        ) from None
    return made


@contextmanager
def _stopped_by_signals(server: Server) -> Iterator[None]:
    """Have signals stop the server and nothing else.

    uvicorn raises a signal again after it has stopped, which would end the process with the
    signal's status; a stop that was asked for and went well ends with 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, server.handle_exit) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
