"""Connections: HTTP/1.1 from clients that may be hostile, slow, or gone."""

import asyncio
from typing import Any, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from modelyard.service.problems import GONE

MOST_BESIDE_BYTES = 1 << 20
"""Of a request, beside its body: head, trailers, and what is said of chunks."""
MOST_HEADERS = 1000
"""Each is looked through for every header that is asked for."""
MOST_JOINED_BYTES = 1 << 16
PATIENCE_SECONDS = 60
"""How long a client may take for the next head, and to take an answer."""
LOOK_SECONDS = 10
BODY_HEADERS = (b"content-length", b"transfer-encoding")


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


class Connection(HttpToolsProtocol):
    """HTTP/1.1, with limits where uvicorn and httptools set none.

    A client may keep the service waiting for so long, and send so much beside a body. What stands
    behind a body is no header: a key there is none. What cannot be read is refused after those
    requests before it that were whole have had their answers. A connection that asks for another
    protocol is closed after its answer, as httptools reads nothing of it behind its head.
    """

    in_head = in_message = is_broken = False
    beside_bytes = body_bytes = unsent_bytes = 0
    reason = ""
    whole: RequestResponseCycle | None = None
    """The last request that came to its end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self.transport: Any = Joined(transport, self.loop)
        self.moved_s = self.loop.time()
        self.look = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.look.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.in_head = self.in_message = True
        self.beside_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which nobody asks for. Raising refuses the request."""
        if self.in_head:
            super().on_header(name, value)
            if len(self.headers) > MOST_HEADERS:
                self._refuse(f"The request has more than {MOST_HEADERS} headers.")

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self.in_head = False
        self.moved_s = self.loop.time()
        asks_other = self.parser.should_upgrade()
        if asks_other and any(name in BODY_HEADERS for name, _ in self.headers):
            self._refuse("The request has a body and asks for another protocol; leave out Upgrade.")
        self.scope[GONE] = self.transport.is_closing  # type: ignore[literal-required]
        super().on_headers_complete()
        if asks_other:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self.in_message = False
        self.whole = self.cycle
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered."""
        self.moved_s = self.loop.time()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Some bytes come."""
        if self.is_broken:
            return
        was_in_message, self.body_bytes = self.in_message, 0
        super().data_received(data)
        if was_in_message and self.in_message and not self.transport.is_closing():
            beside = self.beside_bytes + len(data) - 2 * self.body_bytes  # small chunks are taken
            self.beside_bytes = max(0, beside)
            if beside > MOST_BESIDE_BYTES:
                self.send_400_response("The request's head is too large.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, and read no more; what came whole is answered first."""
        self.is_broken = True
        if self.whole is None or self.whole.response_complete:
            super().send_400_response(self.reason or msg)
            return
        if self.cycle is not self.whole:  # it waits behind those that are whole
            self.pipeline.popleft()
            self.cycle = self.whole
        self.whole.keep_alive = False

    def _refuse(self, reason: str) -> NoReturn:
        """Refuse what the parser is at."""
        self.reason = reason
        raise ValueError(reason)

    def _look(self) -> None:
        """Close the connection where its client has been waited for too long."""
        now_s, unsent_bytes = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent_bytes != self.unsent_bytes:
            self.unsent_bytes, self.moved_s = unsent_bytes, now_s
        is_owed = self.cycle is not None and not self.cycle.response_complete
        if now_s - self.moved_s < PATIENCE_SECONDS or (is_owed and not unsent_bytes):
            self.look = self.loop.call_later(LOOK_SECONDS, self._look)
        elif unsent_bytes:
            self.transport.abort()
        else:
            self.transport.close()
