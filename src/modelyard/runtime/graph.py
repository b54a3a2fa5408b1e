"""A graph in ONNX Runtime: arrays in, outputs out.

Each processor runs small batches of its own, one operator after the other in one thread. That
does a third more rows a second than all processors together on one batch (measured on 2), since
a batch's arrays stay in the cache and no operator waits for the slowest thread.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from modelyard.runtime.encoded import (
    Arrays,
    Encoded,
    PieceOutputs,
    batches_by_length,
    of_pieces,
)

BUDGET_TOKENS = 2048
"""Tokens of a batch that `run` takes at once without much memory."""
SHARE_TOKENS = 512
"""Tokens that one thread takes at once."""
Outputs = NDArray[np.float32]
"""Of a batch: (P, C), or (P, T, C) where a graph answers for tokens."""


def threads() -> int:
    """How many a graph runs in, unless told otherwise: one for each processor that is ours."""
    return len(os.sched_getaffinity(0))


class Graph:
    """An ONNX graph, loaded once and called by any thread."""

    def __init__(self, file: Path, threads: int | None = None):
        self.threads = threads or len(os.sched_getaffinity(0))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # else a plan is kept for every shape ever seen
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            file, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="graph")
        self.input_names = [each.name for each in self._session.get_inputs()]
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def run(self, encoded: Encoded) -> PieceOutputs:
        """One batch of pieces of like length: their outputs, shared out among the threads."""
        shares = list(_shares(encoded, self.threads))
        if len(shares) == 1:
            return of_pieces(self._each(encoded), self.width)
        found = self._pool.map(lambda share: self._each(encoded.take(share)), shares)
        return of_pieces([own for outputs in found for own in outputs], self.width)

    def outputs(self, encoded: Encoded, budget_tokens: int = SHARE_TOKENS) -> PieceOutputs:
        """All pieces, batched by length with little padding: their outputs, in their order."""
        budget = min(budget_tokens, int(encoded.lengths.sum()) // self.threads + 1)
        batches = list(batches_by_length(encoded.lengths, budget))
        found = self._pool.map(lambda some: self._each(encoded.take(some)), batches)
        in_order: list[Any] = [None] * len(encoded.lengths)
        for some, outputs in zip(batches, found, strict=True):
            for index, own in zip(some.tolist(), outputs, strict=True):
                in_order[index] = own
        return of_pieces(in_order, self.width)

    def _each(self, encoded: Encoded) -> list[Outputs]:
        """The outputs of each piece of a batch: (C,), or (T, C) of its own tokens."""
        found = self._run(encoded.whole())
        if found.ndim == 2:
            return list(found)
        return [own[:length] for own, length in zip(found, encoded.lengths.tolist(), strict=True)]

    def _run(self, arrays: Arrays) -> Outputs:
        wanted = {name: arrays[name] for name in self.input_names}
        outputs: Outputs = self._session.run(None, wanted)[0]
        return outputs


def _shares(encoded: Encoded, threads: int) -> Iterator[NDArray[np.int64]]:
    """The pieces in slices: one for each thread, smaller where they are long."""
    pieces, longest = len(encoded.lengths), int(encoded.lengths.max())
    size = min(-(-pieces // threads), max(1, SHARE_TOKENS // longest))
    for start in range(0, pieces, size):
        yield np.arange(start, min(start + size, pieces))
