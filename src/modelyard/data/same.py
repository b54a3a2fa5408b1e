"""Rows that say the same: exact duplicates, contradictory rows, and almost equal ones."""

import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.core.events import Events, Progress, silent

THRESHOLD = 0.8
PERMUTATIONS = 60
BANDS, BAND_ROWS = 12, 5
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

    Broder, A. (1997), On the resemblance and containment of documents.
    """
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(key) for key in keys]
    encoded = ([shingle.encode("utf-8", "replace") for shingle in each] for each in sets)
    hashes = MinHash.generator(encoded, num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
    seen = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, BAND_ROWS))
    found = []
    for index, sketch in enumerate(hashes):
        if index % 1000 == 0:
            events(Progress("looking for near duplicates", index, len(keys), "rows"))
        near = max(
            ((similarity(sets[index], sets[other]), -other) for other in seen.query(sketch)),
            default=(0.0, 0),
        )
        if near[0] >= THRESHOLD:
            found.append(Alike(index, -near[1], near[0]))
        else:
            seen.insert(index, sketch)
    return found


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
