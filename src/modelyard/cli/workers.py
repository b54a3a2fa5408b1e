"""Answering parts of a file of rows: in this process, or in several, each with a runtime.

Several keep what Python does (reading, checks, tokenising, writing) from holding up the graph.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import WorkerDied

if TYPE_CHECKING:
    from modelyard.data.files import Record
    from modelyard.data.parts import Part
    from modelyard.runtime.runtime import Runtime

PARTS_AHEAD = 1
"""Parts that wait for each process, so that it has work when it is done with one."""


@dataclass(frozen=True)
class Work:
    """What is done with the parts of a file: everything a process has to know."""

    release: Path
    public_key: Path | None
    candidates: Path | None
    threads: int
    counted_in: str
    beside: Path
    """Where relative paths in the rows start."""
    folder: Path
    """Where the parts are written."""
    out: Path
    columns: tuple[str, ...]
    """Those of the output, where its form has a header."""


Numbered = tuple[int, "list[Record]"]


def answered(
    parts: Iterable[Numbered], work: Work, processes: int
) -> Generator["Part", None, None]:
    """Write each part's rows with their answers; gives parts as they are done, in any order.

    Few parts are in memory at a time. Raises what a part raises, and WorkerDied.
    """
    if processes == 1:
        for number, records in parts:
            yield _answer(work, number, records)
        return
    waiting: set[Future[Part]] = set()
    with _processes(processes, work.threads) as pool:
        for number, records in parts:
            waiting.add(pool.submit(_answer, work, number, records))
            if len(waiting) == processes * (1 + PARTS_AHEAD):
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)


@contextmanager
def _processes(processes: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone at the end, at once where it is an error."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (threads,))
    try:
        yield pool
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise WorkerDied(
                "A process that answered rows ended before it was done: something killed it, or "
                "memory ran out; give the same command again to go on from what is done, with "
                "fewer --processes where memory is short."
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """Set up a process: it ends with its parent, also where that is killed."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # the tokenizer's threads
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(work: Work, number: int, records: "list[Record]") -> "Part":
    """Write a part."""
    from modelyard.cli.answers import ERROR, answer
    from modelyard.data.parts import Part, write_part

    rows = list(answer(_runtime(work), records, work.counted_in, work.beside, is_first=number == 0))
    size = write_part(work.folder, number, work.out, rows, work.columns)
    problems = [row[ERROR] for row in rows if row[ERROR] is not None]
    return Part(number, len(rows), len(problems), next(iter(problems), None), size)


@lru_cache(maxsize=1)
def _runtime(work: Work) -> "Runtime":
    from modelyard.doors import open_release

    return open_release(work.release, work.public_key, work.candidates, work.threads, shares=1)
