"""Rows made ready for a graph: pieces, and which row each piece belongs to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Encoded:
    """B rows as P pieces; a long text has several pieces, most rows have one.

    Each piece maps a graph input's name to an array of shape (T,), T its length. `row_of` (P,)
    says which row a piece belongs to, in rising order, with at least one piece for each row.
    `fill` gives the value that pads each graph input.
    """

    pieces: Sequence[dict[str, NDArray[np.int64]]]
    row_of: NDArray[np.int64]
    lengths: NDArray[np.int64]
    fill: dict[str, int]

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return int(self.row_of[-1]) + 1 if len(self.row_of) else 0

    def first(self, rows: int) -> "Encoded":
        """The first rows, as many as asked for or as there are."""
        end = int(np.searchsorted(self.row_of, rows))
        return Encoded(self.pieces[:end], self.row_of[:end], self.lengths[:end], self.fill)

    def collate(self, indices: Sequence[int] | NDArray[np.int64]) -> Arrays:
        """The pieces at `indices` as arrays (P, T), padded to the longest of them."""
        longest = int(self.lengths[np.asarray(indices)].max())
        batch: Arrays = {}
        for name, fill in self.fill.items():
            array = np.full((len(indices), longest), fill, dtype=np.int64)
            for position, index in enumerate(indices):
                values = self.pieces[index][name]
                array[position, : len(values)] = values
            batch[name] = array
        return batch


def batches_by_length(
    lengths: NDArray[np.int64], budget_tokens: int, most_pieces: int = 256
) -> Iterator[NDArray[np.int64]]:
    """Indices in batches of nearly equal length, each of at most `budget_tokens` with padding.

    A piece longer than the budget makes a batch of its own.

    >>> [b.tolist() for b in batches_by_length(np.array([9, 2, 3, 8]), budget_tokens=18)]
    [[1, 2], [3, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end - start >= most_pieces
        if end < len(order) and not full:
            full = int(lengths[order[end]]) * (end + 1 - start) > budget_tokens
        if end == len(order) or full:
            yield order[start:end]
            start = end


def pooled(outputs: NDArray[np.float32], row_of: NDArray[np.int64]) -> NDArray[np.float32]:
    """Outputs of pieces (P, C) as outputs of rows (B, C): the mean over each row's pieces.

    >>> pooled(np.array([[1.0], [3.0], [5.0]], np.float32), np.array([0, 0, 1])).tolist()
    [[2.0], [5.0]]
    """
    starts = np.flatnonzero(np.r_[True, np.diff(row_of) > 0]) if len(row_of) else row_of
    counts = np.diff(np.r_[starts, len(row_of)]).astype(np.float32)
    summed = np.add.reduceat(outputs, starts, axis=0) if len(row_of) else outputs
    mean: NDArray[np.float32] = summed / counts[:, None]
    return mean
