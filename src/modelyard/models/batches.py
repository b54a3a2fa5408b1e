"""Batches: which rows make a step, so that little is padded and each row weighs the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
MEGA_STEPS = 64
MOST_TOKENS = 4096
PADDING = 0.045
SMALL_TOKENS = 8


class Pieces(Protocol):
    """Rows made ready for a network: pieces (P,), and which row (P,) each belongs to."""

    @property
    def row_of(self) -> Indices:
        """The row of each piece, in rising order."""

    @property
    def lengths(self) -> Indices:
        """The length of each piece."""

    @property
    def rows(self) -> int:
        """How many rows these are."""

    def collate(self, indices: Indices) -> dict[str, NDArray[np.generic]]:
        """The pieces at `indices` as arrays (P, ...), padded to the longest of them."""


@dataclass(frozen=True)
class Part:
    """Rows whose losses are computed together: B rows with P pieces in groups of like length."""

    rows: Indices
    groups: Sequence[Indices]
    row_of: Indices
    """The position in `rows` (P,) of each piece, in the order of the groups."""


@dataclass(frozen=True)
class Batch:
    """The rows of one step, in parts that bound the memory."""

    parts: Sequence[Part]
    rows: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True)
class Batches:
    """The steps of each epoch: rows of like length together, of about equal numbers of tokens.

    A step has `batch_rows` rows on average: more where they are short, fewer where they are
    long. The order depends on the seed and the epoch only. `parts` is how many parts a step has
    at least, or a multiple of it, where there are rows enough.
    """

    pieces: Pieces
    batch_rows: int
    seed: int
    parts: int = 1
    most_tokens: int = MOST_TOKENS
    """Of a part."""

    @property
    def steps_in_epoch(self) -> int:
        """How many batches an epoch has."""
        whole, rest = divmod(self.pieces.rows, self.batch_rows * MEGA_STEPS)
        return whole * MEGA_STEPS + (_count(rest, self.batch_rows) if rest else 0)

    def epoch(self, number: int) -> list[Batch]:
        """The batches of an epoch, which together hold each row once."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(self.pieces.rows)
        size = self.batch_rows * MEGA_STEPS
        spans = rows_as_pieces(self.pieces.row_of)
        tokens = np.add.reduceat(self.pieces.lengths, spans[:-1])
        batches = [
            self._batch(rows, spans)
            for start in range(0, len(order), size)
            for rows in cut_by_tokens(order[start : start + size], tokens, self.batch_rows)
        ]
        return [batches[position] for position in random.permutation(len(batches))]

    def whole(self) -> Batch:
        """All rows as one batch."""
        return self._batch(np.arange(self.pieces.rows), rows_as_pieces(self.pieces.row_of))

    def _batch(self, rows: Indices, spans: Indices) -> Batch:
        lengths = self.pieces.lengths
        tokens = sum(int(lengths[spans[row] : spans[row + 1]].sum()) for row in rows)
        count = self.parts * -(-tokens // (self.parts * self.most_tokens))
        parts = [_part(rows[n::count], spans, lengths) for n in range(min(count, len(rows)))]
        padded = sum(len(g) * int(lengths[g].max()) for part in parts for g in part.groups)
        return Batch(parts, len(rows), tokens, padded)


def rows_as_pieces(row_of: Indices) -> Indices:
    """Where each row's pieces begin (B + 1,), with the end at last.

    >>> rows_as_pieces(np.array([0, 0, 1])).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.r_[True, np.diff(row_of) > 0, True])


def cut_by_tokens(rows: Indices, tokens: Indices, batch_rows: int) -> list[Indices]:
    """Rows sorted by length and cut into batches of about equal numbers of tokens.

    >>> rows = np.arange(6)
    >>> [b.tolist() for b in cut_by_tokens(rows, np.array([1, 1, 1, 1, 2, 2]), batch_rows=3)]
    [[0, 1, 2, 3], [4, 5]]
    """
    ordered = rows[np.argsort(tokens[rows], kind="stable")]
    reached = np.cumsum(tokens[ordered])
    count = _count(len(rows), batch_rows)
    return np.split(ordered, _ends(reached, count))


def _count(rows: int, batch_rows: int) -> int:
    return max(1, round(rows / batch_rows))


def groups_by_length(
    indices: Indices, lengths: Indices, most_tokens: int = MOST_TOKENS
) -> Iterator[Indices]:
    """Pieces in groups of like length, the longest first: little padding, bounded memory.

    >>> lengths = np.array([256, 30, 256, 31])
    >>> [g.tolist() for g in groups_by_length(np.arange(4), lengths)]
    [[0, 2], [3, 1]]
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    start, padding = 0, 0
    for end, index in enumerate(order):
        longest = int(lengths[order[start]])
        area = longest * (end + 1 - start)
        padding += longest - int(lengths[index])
        if end > start and (area > most_tokens or padding > max(SMALL_TOKENS, PADDING * area)):
            yield order[start:end]
            start, padding = end, 0
    if len(order):
        yield order[start:]


def _ends(reached: Indices, count: int) -> Indices:
    """Where to cut into `count` runs of about equal sums, none of them empty."""
    nth = np.arange(1, count)
    ends = np.searchsorted(reached, reached[-1] * nth / count) + 1
    ends = np.maximum.accumulate(np.maximum(ends, nth) - nth) + nth
    return np.asarray(np.minimum(ends, len(reached) - count + nth))


def _part(rows: Indices, spans: Indices, lengths: Indices) -> Part:
    pieces = np.concatenate([np.arange(spans[row], spans[row + 1]) for row in rows])
    counts = spans[rows + 1] - spans[rows]
    place = dict(zip(pieces.tolist(), np.repeat(np.arange(len(rows)), counts), strict=True))
    groups = list(groups_by_length(pieces, lengths))
    row_of = np.array([place[piece] for group in groups for piece in group.tolist()])
    return Part(rows, groups, row_of)
