"""The encoder: rows of requests made ready for the graph, off the event loop and together.

A call for each request would cost more than its work where rows are few. So while a thread
encodes, what comes meanwhile waits and is encoded together next. Large requests have a thread of
their own, and no small one waits for them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from modelyard.runtime.encoded import Encoded
from modelyard.runtime.runtime import Pools, Runtime

MOST_TOGETHER = 64
"""Rows encoded at once; a request of more is large."""
Rows = Sequence[Mapping[str, Any]]
Taken = tuple[Encoded, Pools | None]
"""Rows encoded, and what their answers are picked from."""


@dataclass(eq=False)
class Asked:
    """One request's rows, and the future that gets them encoded."""

    rows: Rows
    done: asyncio.Future[Taken]


@dataclass
class Lane:
    """A thread and the requests that wait for it."""

    thread: ThreadPoolExecutor
    waiting: list[Asked] = field(default_factory=list)
    is_busy: bool = False


class Encoder:
    """Encodes rows in threads; all its state lives on the event loop."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._small, self._large = (
            Lane(ThreadPoolExecutor(1, thread_name_prefix="encode")) for _ in range(2)
        )

    async def encoded(self, rows: Rows) -> Taken:
        """Rows encoded; raises BadInput for the first row that cannot be."""
        lane = self._small if len(rows) <= MOST_TOGETHER else self._large
        asked = Asked(rows, asyncio.get_running_loop().create_future())
        lane.waiting.append(asked)
        if not lane.is_busy:
            self._start(lane)
        return await asked.done

    def close(self) -> None:
        """Let go of the threads."""
        for lane in (self._small, self._large):
            lane.thread.shutdown()

    def _start(self, lane: Lane) -> None:
        some = _together(lane)
        lane.is_busy = False
        if some:
            loop = asyncio.get_running_loop()
            rows = [asked.rows for asked in some]
            run = loop.run_in_executor(lane.thread, encoded_together, self._runtime, rows)
            lane.is_busy = True
            run.add_done_callback(partial(self._told, lane, some))

    def _told(
        self, lane: Lane, some: list[Asked], run: "asyncio.Future[list[Taken | BaseException]]"
    ) -> None:
        error = run.exception()
        results: Sequence[Taken | BaseException] = [error] * len(some) if error else run.result()
        for asked, found in zip(some, results, strict=True):
            if asked.done.done():  # its client has gone
                continue
            if isinstance(found, BaseException):
                asked.done.set_exception(_as_exception(found))
            else:
                asked.done.set_result(found)
        self._start(lane)


def _as_exception(error: BaseException) -> Exception:
    """A tokenizer's panic is no Exception, and a future takes no other."""
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def _together(lane: Lane) -> list[Asked]:
    """The oldest requests that wait, one or as many as are encoded at once; those gone are not."""
    lane.waiting = [asked for asked in lane.waiting if not asked.done.done()]
    rows, count = 0, 0
    for asked in lane.waiting:
        rows += len(asked.rows)
        if count and rows > MOST_TOGETHER:
            break
        count += 1
    some, lane.waiting = lane.waiting[:count], lane.waiting[count:]
    return some


def encoded_together(runtime: Runtime, requests: Sequence[Rows]) -> list[Taken | BaseException]:
    """Each request's rows encoded, or why they cannot be; a bad one harms no other."""
    found = [_checked(runtime, rows) for rows in requests]
    values = [each[0] for each in found if not isinstance(each, BaseException)]
    if len(values) < 2:
        return [_alone(runtime, each) for each in found]
    try:
        joined = runtime.columns.encode(
            {name: [v for own in values for v in own[name]] for name in values[0]}
        )
    except BaseException:  # noqa: BLE001 – one request's rows may have broken it
        return [_alone(runtime, each) for each in found]
    taken: list[Taken | BaseException] = []
    start = 0
    for rows, each in zip(requests, found, strict=True):
        if isinstance(each, BaseException):
            taken.append(each)
            continue
        taken.append((joined.between(start, start + len(rows)), each[1]))
        start += len(rows)
    return taken


Checked = tuple[dict[str, list[Any]], Pools | None]


def _checked(runtime: Runtime, rows: Rows) -> Checked | BaseException:
    try:
        return runtime.columns.values(rows), runtime.pools(rows)
    except BaseException as error:  # noqa: BLE001 – the request's own
        return error


def _alone(runtime: Runtime, checked: Checked | BaseException) -> Taken | BaseException:
    if isinstance(checked, BaseException):
        return checked
    try:
        return runtime.columns.encode(checked[0]), checked[1]
    except BaseException as error:  # noqa: BLE001 – the request's own
        return error
