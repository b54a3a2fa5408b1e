"""A graph in an engine: arrays in, outputs out.

Each processor runs small batches of its own, one operator after the other in one thread. That
does a third more rows a second than all processors together on one batch (measured on 2), since
a batch's arrays stay in the cache and no operator waits for the slowest thread.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.runtime.encoded import (
    Arrays,
    Encoded,
    Indices,
    PieceOutputs,
    batches_by_length,
    of_pieces,
)
from modelyard.runtime.engine import ENGINES, ONNX_RUNTIME, Outputs

SHARE_TOKENS = 512
"""Tokens that one thread takes at once."""


def threads() -> int:
    """How many a graph runs in, unless told otherwise: one for each processor that is ours."""
    return len(os.sched_getaffinity(0))


def tapered(batches: list[Indices], shares: int) -> list[Indices]:
    """Batches of which the last are cut into smaller ones, where there are many for each share.

    So no thread waits long for the one that took the last (Polychronopoulos and Kuck 1987, Guided
    self-scheduling).

    >>> [len(batch) for batch in tapered([np.arange(8)] * 10, shares=2)]
    [8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    if shares < 2 or len(batches) <= 4 * shares:
        return batches
    found = batches[: -2 * shares]
    for cuts, some in ((2, batches[-2 * shares : -shares]), (4, batches[-shares:])):
        for batch in some:
            found += [part for part in np.array_split(batch, cuts) if len(part)]
    return found


class Graph:
    """An ONNX graph, loaded once and called by any thread.

    `outputs` makes at least `shares` batches of what it is given: by default as many as there
    are threads, so that none is idle. The last bits of a piece's outputs depend on the shape of
    the batch it is in; with `shares` given they do not depend on the machine.
    """

    def __init__(
        self,
        file: Path,
        threads: int | None = None,
        shares: int | None = None,
        engine: str = ONNX_RUNTIME,
    ):
        self.threads = threads or len(os.sched_getaffinity(0))
        self.engine = engine
        self._least_batches = shares or self.threads
        self._engine = ENGINES[engine](file, self.threads)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="graph")
        self._flat = {name for name, rank in self._engine.ranks.items() if rank == 1}
        self.pads = not self._flat
        """Whether shorter pieces of a batch cost as much as its longest."""
        self.width = self._engine.width

    def run(self, encoded: Encoded) -> PieceOutputs:
        """One batch of pieces of like length, in the thread that calls: their outputs."""
        return of_pieces(self._each(encoded), self.width)

    def outputs(self, encoded: Encoded, budget_tokens: int = SHARE_TOKENS) -> PieceOutputs:
        """All pieces, batched by length with little padding: their outputs, in their order."""
        budget = min(budget_tokens, int(encoded.lengths.sum()) // self._least_batches + 1)
        batches = tapered(list(batches_by_length(encoded.lengths, budget)), self._least_batches)
        found = self._pool.map(lambda some: self._each(encoded.take(some)), batches)
        in_order: list[Any] = [None] * len(encoded.lengths)
        for some, outputs in zip(batches, found, strict=True):
            for index, own in zip(some.tolist(), outputs, strict=True):
                in_order[index] = own
        return of_pieces(in_order, self.width)

    def _each(self, encoded: Encoded) -> list[Outputs]:
        """The outputs of each piece of a batch: (C,), or (T, C) of its own tokens."""
        found = self._engine.run(self.arrays(encoded))
        if found.ndim == 2:
            return list(found)
        return [own[:length] for own, length in zip(found, encoded.lengths.tolist(), strict=True)]

    def arrays(self, encoded: Encoded) -> Arrays:
        """A batch of pieces as the graph takes it."""
        whole = encoded.whole(self._flat)
        return {name: whole[name] for name in self._engine.ranks}
