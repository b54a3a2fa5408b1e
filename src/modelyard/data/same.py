"""Rows that say the same: exact duplicates, contradictory rows, and almost equal ones."""

import re
import time
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelyard.core.events import Events, Progress, silent

T = TypeVar("T")
THRESHOLD = 0.8
PERMUTATIONS = 60
BANDS, BAND_ROWS = 12, 5
TOLD_ROWS = 500
CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
METHOD = {
    "measure": "Jaccard similarity of sets of shingles",
    "shingles": "3 characters where a fifth of them are Chinese or the like, else 2 words",
    "threshold": THRESHOLD,
    "candidates": f"MinHash, {PERMUTATIONS} permutations, {BANDS} bands of {BAND_ROWS}; "
    "each candidate is measured, so what is found is right, and of pairs at the threshold "
    "99 % are found",
}


def normalised(text: str) -> str:
    r"""A text as far as its sameness goes: Unicode NFKC, case folded, white space collapsed.

    >>> normalised(" Ｇood\n  FILM ")
    'good film'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def duplicates(texts: Sequence[str], labels: Sequence[str]) -> dict[int, int]:
    """Each row that repeats an earlier one, text and label: its index to that row's.

    >>> duplicates(["a", "b", "a", "a"], ["x", "x", "x", "y"])
    {2: 0}
    """
    first: dict[tuple[str, str], int] = {}
    repeated = {}
    for index, pair in enumerate(zip(texts, labels, strict=True)):
        if (kept := first.setdefault(pair, index)) != index:
            repeated[index] = kept
    return repeated


def contradictory(keys: Sequence[str], labels: Sequence[str]) -> dict[int, int]:
    """Each row whose text has another label elsewhere: its index to the first such row's.

    >>> contradictory(["a", "b", "a", "a"], ["x", "x", "y", "x"])
    {0: 2, 2: 0, 3: 2}
    """
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for index, (key, label) in enumerate(zip(keys, labels, strict=True)):
        found[key].setdefault(label, index)
    return {
        index: next(other for name, other in found[key].items() if name != label)
        for index, (key, label) in enumerate(zip(keys, labels, strict=True))
        if len(found[key]) > 1
    }


@dataclass(frozen=True)
class Alike:
    """A row that is almost equal to an earlier one."""

    index: int
    first: int
    similarity: float


def almost_equal(keys: Sequence[str], events: Events = silent) -> list[Alike]:
    """Rows almost equal to an earlier one that is itself like none before it.

    Shingles are made again for a candidate: candidates are few, and all rows' shingles are large.
    Broder, A. (1997), On the resemblance and containment of documents.
    """
    from datasketch import MinHash, MinHashLSH

    pieces = ([piece.encode("utf-8", "replace") for piece in shingles(key)] for key in keys)
    sketches = MinHash.generator(pieces, num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
    seen = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, BAND_ROWS))
    found = []
    for index, sketch in enumerate(_told(sketches, len(keys), events)):
        near = _nearest(keys, index, seen.query(sketch))
        if near and near.similarity >= THRESHOLD:
            found.append(near)
        else:
            seen.insert(index, sketch)
    return found


def _nearest(keys: Sequence[str], index: int, candidates: Sequence[int]) -> Alike | None:
    own = shingles(keys[index]) if candidates else frozenset()
    measured = [Alike(index, c, similarity(own, shingles(keys[c]))) for c in candidates]
    return max(measured, key=lambda each: (each.similarity, -each.first), default=None)


def _told(rows: Iterable[T], total: int, events: Events) -> Iterator[T]:
    """Go through rows and tell how far that has come."""
    start = time.monotonic()
    for done, row in enumerate(rows):
        if done and done % TOLD_ROWS == 0:
            left = (time.monotonic() - start) / done * (total - done)
            events(Progress("looking for near duplicates", done, total, "rows", left))
        yield row
    events(Progress("looking for near duplicates", total, total, "rows", 0.0))


def shingles(key: str) -> frozenset[str]:
    """The pieces of a normalised text that are compared: see METHOD.

    >>> sorted(shingles("a very good film"))
    ['a very', 'good film', 'very good']
    """
    words = re.findall(r"\w+", key)
    letters = "".join(words)
    if len(CJK.findall(letters)) > 0.2 * len(letters):
        pieces = {letters[start : start + 3] for start in range(max(1, len(letters) - 2))}
    else:
        pieces = {" ".join(words[start : start + 2]) for start in range(max(1, len(words) - 1))}
    return frozenset(pieces if letters else {key})


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard similarity of two sets of shingles.

    >>> similarity(frozenset("abc"), frozenset("abd"))
    0.5
    """
    return len(one & other) / max(1, len(one | other))
