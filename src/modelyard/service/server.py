"""The server: an app on a port until it is told to stop."""

import gc
import ipaddress
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from modelyard.core.errors import SettingInvalid
from modelyard.service.connection import Connection

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
MOST_PORT = 65_535
SWITCH_SECONDS = 0.0005
"""How long a thread goes on while another waits, as what settles does after each statement."""
COLLECTED = (20_000, 50, 1000)
"""When garbage is looked for, in new objects, and rounds of the younger ones.

With Python's own numbers a queue of thousands of requests is walked many times a second, and a
service that has too many takes fewer still.
"""
NO_PASSWORD = "none"  # noqa: S105 – of nothing
"""Tried where a key needs one; without any, OpenSSL would ask for it at the terminal."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
Ready = Callable[[str], None]


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

    `certificate` and `private_key` are PEM files, for TLS; one file may hold both. Of `proxies`,
    addresses and networks that stand between, what they forward of a client's address and scheme
    is believed; of nobody else, whatever the environment says.
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
    gc.set_threshold(*COLLECTED)
    with bound(host, port, listening.is_shared, listens=True) as listener:
        taken = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if listening.certificate else "http"
        server = Server(settings, lambda: ready(f"{scheme}://{shown}:{taken}"))
        with _stopped_by_signals(server):
            server.run([listener])


def configuration(app: ASGIApp, listening: Listening = PLAINLY) -> uvicorn.Config:
    """How uvicorn serves an app: httptools, uvloop where there is one, no logging of its own.

    Raises SettingInvalid.
    """
    _check(listening)
    settings = uvicorn.Config(
        app,
        http=Connection,
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
        ssl_keyfile_password=NO_PASSWORD,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=listening.grace_seconds,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        own_key = f" with the key {listening.private_key}" if listening.private_key else ""
        raise SettingInvalid(
            f"The certificate {listening.certificate}{own_key} cannot be used: "
            f"{error.strerror or error}; give two PEM files that belong together, the key without "
            "a password."
        ) from None
    return settings


def _check(listening: Listening) -> None:
    """Refuse what uvicorn would take and never use: SettingInvalid."""
    if listening.private_key and not listening.certificate:
        raise SettingInvalid("--private-key is for --certificate; give both, or none of them.")
    for each in listening.proxies:
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise SettingInvalid(
                f"--proxy takes an address or a network, such as 10.0.0.5 or 10.0.0.0/24; got "
                f"{each[:80]!r}."
            ) from None


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
