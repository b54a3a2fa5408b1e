"""What is written in one turn of the loop goes out at once, in order, and never to nobody."""

import asyncio
from typing import Any

import pytest

from modelyard.service.connection import MOST_JOINED_BYTES, Joined


class Wire:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if self.is_closed:
            raise RuntimeError("closed")
        self.sent.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def after(*writes: bytes, close: str = "") -> Wire:
    """The wire once these have been written in one turn, and the next turn is over."""

    async def turn() -> Wire:
        wire: Any = Wire()
        joined = Joined(wire, asyncio.get_running_loop())
        for data in writes:
            joined.write(data)
        if close == "joined":
            joined.close()
        if close == "wire":
            wire.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return wire

    return asyncio.run(turn())


def test_head_and_body_are_one_write() -> None:
    assert after(b"head ", b"body").sent == [b"head body"]


def test_what_waits_is_bounded() -> None:
    chunk = b"x" * (MOST_JOINED_BYTES // 4)
    wire = after(b"head", *[chunk] * 9, b"tail")
    assert b"".join(wire.sent) == b"head" + chunk * 9 + b"tail"
    assert len(wire.sent) == 3 and max(map(len, wire.sent)) <= MOST_JOINED_BYTES + len(chunk)


def test_closing_sends_what_waits() -> None:
    wire = after(b"head ", b"body", close="joined")
    assert wire.sent == [b"head body"] and wire.is_closed


@pytest.mark.filterwarnings("error")
def test_a_connection_that_is_gone_gets_nothing() -> None:
    assert after(b"head ", b"body", close="wire").sent == []
