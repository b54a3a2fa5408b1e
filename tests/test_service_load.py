"""Load over HTTP: requests at a given rate, and what is counted of their answers."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from modelyard.service.load import Request, ask, due_times, offer

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def _answering(answers: Callable[[int], bytes], delay_s: float = 0.0) -> Iterator[Request]:
    """A server that gives the nth request the nth answer; with none it hangs up."""
    numbers = count()
    connections: set[asyncio.Task[None]] = set()
    stop = threading.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            while await reader.read(1000):  # a request is small enough to come at once
                await asyncio.sleep(delay_s)
                if not (answer := answers(next(numbers))):
                    return
                writer.write(answer)
        finally:
            writer.close()

    async def serve(listener: socket.socket) -> None:
        async with await asyncio.start_server(connected, sock=listener):
            await asyncio.to_thread(stop.wait)
            await asyncio.gather(*connections)

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=lambda: asyncio.run(serve(listener)))
    thread.start()
    try:
        yield Request.to(f"http://127.0.0.1:{listener.getsockname()[1]}", "/", [b"{}"])
    finally:
        stop.set()
        thread.join()


def test_requests_are_due_at_the_rate_whatever_is_answered() -> None:
    times = list(due_times(200, 10, seed=3))
    assert times == sorted(times) and times[0] >= -2 and times[-1] < 10
    assert len(times) == pytest.approx(200 * 12, rel=0.1)
    assert times != list(due_times(200, 10, seed=4))


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """A closed loop of as many clients would send none of the later requests."""
    with _answering(lambda number: DONE, delay_s=0.2) as request:
        found = offer(request, rows_per_s=200, seconds=0.5)
    due = sum(time >= 0 for time in due_times(200, 0.5, seed=0))
    assert (len(found.milliseconds), found.refused, found.lost) == (due, 0, 0)
    assert found.clients > 20
    assert min(found.milliseconds) >= 200


def test_refused_and_lost_requests_are_told_apart() -> None:
    answers = [DONE, BUSY, BROKEN, b""]
    with _answering(lambda number: answers[number % 4]) as request:
        found = offer(request, rows_per_s=400, seconds=0.5)
    assert found.milliseconds and found.lost
    assert 0 < found.told_when < found.refused


def test_clients_that_wait_count_what_is_refused() -> None:
    with _answering(lambda number: (DONE, BUSY)[number % 2]) as request:
        found = ask(request, clients=2, seconds=0.2)
    assert found.refused == found.told_when > 0
    assert found.rows_per_s == pytest.approx(len(found.milliseconds) / 0.2)
