"""Workers: parts of a step computed side by side, each by a thread of its own.

Two threads that each compute whole products meet once a step; one product shared between two
threads makes them meet thousands of times, and wait wherever the machine has other work too.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

MOST_WORKERS = 2  # each more costs another sum over all gradients

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def in_turn(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """One after the other, in this thread."""
    return [function(item) for item in items]


def _begin(threads: int) -> None:
    """Set up a worker's thread.

    Without a number set in the thread itself its first product of matrices, and that alone, is
    computed as if it had all the processor, and is rounded otherwise.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


@contextmanager
def side_by_side(workers: int) -> Iterator[Map]:
    """A map that computes `workers` items at a time, and gives results in the items' order.

    Results do not depend on which worker computes what.
    """
    if workers == 1:
        yield in_turn
        return
    threads = torch.get_num_threads()
    own = max(1, threads // workers)
    with ThreadPoolExecutor(workers, initializer=_begin, initargs=(own,)) as pool:
        torch.set_num_threads(own)
        try:
            yield lambda function, items: list(pool.map(function, items))
        finally:
            torch.set_num_threads(threads)
