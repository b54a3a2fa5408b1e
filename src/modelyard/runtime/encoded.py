"""Rows made ready for a graph: pieces, and which row each piece belongs to.

And what a graph gives for them: outputs of each piece, or of each of its tokens, as outputs of
rows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Arrays = dict[str, Array]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """An array of its own length for each of P pieces, kept end to end.

    `values` holds them all, `ends` (P,) says where each ends, `fill` pads whole numbers to one
    length.
    `mask` names a second array, 1 where there is a value and 0 where there is none; "" for none.
    """

    values: NDArray[Any]
    ends: Indices
    fill: int = 0
    mask: str = ""

    @property
    def starts(self) -> Indices:
        """Where each piece begins (P,)."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def take(self, indices: Indices) -> "Ragged":
        """The pieces at `indices`, in that order."""
        starts, ends = self.starts[indices], self.ends[indices]
        lengths = ends - starts
        own = np.cumsum(lengths)
        places = np.arange(lengths.sum()) + np.repeat(starts - (own - lengths), lengths)
        return Ragged(self.values[places], own, self.fill, self.mask)

    def between(self, first: int, last: int) -> "Ragged":
        """The pieces from `first` to before `last`."""
        start = int(self.ends[first - 1]) if first else 0
        end = int(self.ends[last - 1]) if last else 0
        return Ragged(self.values[start:end], self.ends[first:last] - start, self.fill, self.mask)

    def within(self) -> NDArray[np.bool_]:
        """Where there is a value, of all pieces as one array (P, T)."""
        lengths = self.ends - self.starts
        return np.arange(int(lengths.max(initial=0))) < lengths[:, None]

    def padded(self) -> "tuple[Indices, NDArray[np.bool_]]":
        """All pieces as one array (P, T), and where in it there is a value."""
        within = self.within()
        found = np.full(within.shape, self.fill, dtype=np.int64)
        found[within] = self.values
        return found, within


@dataclass(frozen=True)
class Places:
    """Where each token of P pieces stands in the text of its row.

    `texts` (B,) are the rows' texts; `spans` holds the start and the end (T, 2) of each piece's
    tokens, in characters. A token that stands for no characters, or for which another window of
    its text answers, has the span (0, 0).
    """

    texts: Sequence[str]
    spans: Ragged


@dataclass(frozen=True)
class TokenOutputs:
    """Outputs (N, C) of the tokens of B texts, end to end, and where the tokens stand (N, 2).

    Only tokens that stand for characters are among them, each once; `ends` (B,) says where each
    text's end.
    """

    texts: Sequence[str]
    spans: NDArray[np.int32]
    values: NDArray[np.float32]
    ends: Indices


PieceOutputs = NDArray[np.float32] | Ragged
"""Outputs (P, C) of pieces, or (T, C) of the tokens of each."""
RowOutputs = NDArray[np.float32] | TokenOutputs
"""Outputs (B, C) of rows, or of their tokens."""


@dataclass(frozen=True)
class Deferred:
    """An array for each of P pieces, made of its value when a batch wants it.

    So memory does not grow with what all of them would take.
    """

    values: Sequence[Any]
    made: Callable[[Any], Array]

    def take(self, indices: Indices) -> "Deferred":
        """The pieces at `indices`, in that order."""
        return Deferred([self.values[index] for index in indices.tolist()], self.made)

    def between(self, first: int, last: int) -> "Deferred":
        """The pieces from `first` to before `last`."""
        return Deferred(self.values[first:last], self.made)

    def whole(self) -> Array:
        """All pieces as one array (P, ...)."""
        return np.stack([self.made(value) for value in self.values])


Kept = Array | Ragged | Deferred
"""One array for P pieces, in one of the ways it is kept."""


@dataclass(frozen=True)
class Encoded:
    """B rows as P pieces; a long text has several pieces, most rows have one.

    `arrays` maps a graph input's name to one array (P, ...), to a Ragged of P arrays (T,), or to
    a Deferred of P arrays (...).
    `row_of` (P,) says which row a piece belongs to, in rising order, with at least one piece for
    each row. `lengths` (P,) is what a piece costs, in tokens. `places` is there where tokens are
    what is answered for.
    """

    arrays: Mapping[str, Kept]
    row_of: Indices
    lengths: Indices
    places: Places | None = None

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return int(self.row_of[-1]) + 1 if len(self.row_of) else 0

    def first(self, rows: int) -> "Encoded":
        """The first rows, as many as asked for or as there are."""
        end = int(np.searchsorted(self.row_of, rows))
        return self.take(np.arange(end))

    def between(self, start: int, end: int) -> "Encoded":
        """The rows from `start` to before `end`, as if there were no others; nothing is copied."""
        first, last = np.searchsorted(self.row_of, (start, end)).tolist()
        arrays = {name: _between(array, first, last) for name, array in self.arrays.items()}
        places = self.places and Places(
            self.places.texts[start:end], self.places.spans.between(first, last)
        )
        return Encoded(arrays, self.row_of[first:last] - start, self.lengths[first:last], places)

    def take(self, indices: Indices) -> "Encoded":
        """The pieces at `indices`, each with the row it belongs to."""
        arrays = {name: _taken(array, indices) for name, array in self.arrays.items()}
        places = self.places and Places(self.places.texts, self.places.spans.take(indices))
        return Encoded(arrays, self.row_of[indices], self.lengths[indices], places)

    def at(self, rows: Indices) -> "Encoded":
        """The rows at these places, in that order; one may be taken several times."""
        counts = np.bincount(self.row_of, minlength=self.rows)
        first = counts.cumsum() - counts
        own = counts[rows]
        within = np.arange(own.sum()) - np.repeat(own.cumsum() - own, own)
        taken = self.take(np.repeat(first[rows], own) + within)
        return replace(taken, row_of=np.repeat(np.arange(len(rows)), own))

    def collate(self, indices: "Sequence[int] | Indices") -> Arrays:
        """The pieces at `indices` as arrays (P, T) or (P, ...), padded to the longest of them."""
        return self.take(np.asarray(indices, dtype=np.int64)).whole()

    @property
    def ragged(self) -> set[str]:
        """The names of what is as long as the longest piece, masks too."""
        found = {name: array for name, array in self.arrays.items() if isinstance(array, Ragged)}
        masks = {_beside(name, array.mask) for name, array in found.items() if array.mask}
        return {*found, *masks}

    def whole(self, flat: Collection[str] = ()) -> Arrays:
        """All pieces as arrays, padded to the longest; those named in `flat` end to end (N,)."""
        batch: Arrays = {}
        for name, array in self.arrays.items():
            if not isinstance(array, Ragged):
                batch[name] = array.whole() if isinstance(array, Deferred) else array
                continue
            if name in flat:
                batch[name], within = array.values.astype(np.int64), array.within()
            else:
                batch[name], within = array.padded()
            if array.mask:
                batch[_beside(name, array.mask)] = within.astype(np.int64)
        return batch


def _beside(name: str, other: str) -> str:
    """Another array's name with the prefix of this one's.

    >>> _beside("0.input_ids", "attention_mask"), _beside("input_ids", "attention_mask")
    ('0.attention_mask', 'attention_mask')
    """
    prefix, dot, _ = name.rpartition(".")
    return prefix + dot + other


def _taken(array: Kept, indices: Indices) -> Kept:
    return array.take(indices) if isinstance(array, Ragged | Deferred) else array[indices]


def _between(array: Kept, first: int, last: int) -> Kept:
    return array.between(first, last) if isinstance(array, Ragged | Deferred) else array[first:last]


def one_after_the_other(parts: Sequence[Encoded]) -> Encoded:
    """The pieces of several, as if each piece were a row; they have the same arrays."""
    arrays = {name: _joined([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    lengths = np.concatenate([part.lengths for part in parts])
    return Encoded(arrays, np.arange(len(lengths)), lengths)


def _joined(arrays: Sequence[Kept]) -> Kept:
    ragged = [array for array in arrays if isinstance(array, Ragged)]
    if not ragged:
        return np.concatenate([a.whole() if isinstance(a, Deferred) else a for a in arrays])
    values = np.concatenate([each.values for each in ragged])
    before = np.cumsum([0, *(len(each.values) for each in ragged[:-1])])
    ends = np.concatenate([each.ends + n for each, n in zip(ragged, before, strict=True)])
    return Ragged(values, ends, ragged[0].fill, ragged[0].mask)


def side_by_side(groups: Mapping[str, Encoded]) -> Encoded:
    """The same rows, encoded by several groups of columns, as pieces that hold them all.

    A group's arrays get its name as a prefix. Where a group has fewer pieces for a row than
    another, its last one is repeated. Pieces cost what their parts cost together.
    """
    counts = {name: np.bincount(each.row_of, minlength=each.rows) for name, each in groups.items()}
    most = np.max(list(counts.values()), axis=0)  # (B,)
    row_of = np.repeat(np.arange(len(most)), most)
    place = np.arange(len(row_of)) - np.repeat(np.cumsum(most) - most, most)
    arrays: dict[str, Kept] = {}
    lengths = np.zeros(len(row_of), dtype=np.int64)
    for name, each in groups.items():
        own = counts[name]
        first = np.cumsum(own) - own
        taken = each.take(first[row_of] + np.minimum(place, own[row_of] - 1))
        arrays |= {f"{name}.{array}": values for array, values in taken.arrays.items()}
        lengths += taken.lengths
    return Encoded(arrays, row_of, lengths)


def batches_by_length(
    lengths: Indices, budget_tokens: int, most_pieces: int = 256
) -> Iterator[Indices]:
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


def of_pieces(outputs: Sequence[NDArray[np.float32]], width: int) -> PieceOutputs:
    """Outputs of P pieces, each (C,) or (T, C), as outputs of all; `width` is C where P is 0."""
    if not outputs:
        return np.zeros((0, width), dtype=np.float32)
    if outputs[0].ndim == 1:
        if len(outputs) == 1:
            return outputs[0][None].astype(np.float32, copy=False)
        return np.stack(outputs).astype(np.float32, copy=False)
    return Ragged(np.concatenate(outputs), np.cumsum([len(own) for own in outputs]))


def each_of(outputs: PieceOutputs) -> list[NDArray[np.float32]]:
    """Outputs of all pieces as those of each: what `of_pieces` undoes."""
    if isinstance(outputs, Ragged):
        return np.split(outputs.values, outputs.ends[:-1])
    return list(outputs)


def of_rows(outputs: PieceOutputs, encoded: Encoded) -> RowOutputs:
    """Outputs of pieces as outputs of the rows they belong to: means, or tokens end to end."""
    if not isinstance(outputs, Ragged):
        return pooled(outputs, encoded.row_of)
    assert encoded.places is not None
    texts, spans = encoded.places.texts[: encoded.rows], encoded.places.spans.values
    stands = spans[:, 1] > spans[:, 0]
    row_of = np.repeat(encoded.row_of, encoded.lengths)[stands]
    ends = np.bincount(row_of, minlength=encoded.rows).cumsum()
    return TokenOutputs(texts, spans[stands], outputs.values[stands], ends)


def pooled(outputs: NDArray[np.float32], row_of: Indices) -> NDArray[np.float32]:
    """Outputs of pieces (P, C) as outputs of rows (B, C): the mean over each row's pieces.

    >>> pooled(np.array([[1.0], [3.0], [5.0]], np.float32), np.array([0, 0, 1])).tolist()
    [[2.0], [5.0]]
    """
    if len(row_of) and row_of[-1] == len(row_of) - 1:  # one piece for each row
        return outputs
    starts = np.flatnonzero(np.r_[True, np.diff(row_of) > 0]) if len(row_of) else row_of
    counts = np.diff(np.r_[starts, len(row_of)]).astype(np.float32)
    summed = np.add.reduceat(outputs, starts, axis=0) if len(row_of) else outputs
    mean: NDArray[np.float32] = summed / counts[:, None]
    return mean
