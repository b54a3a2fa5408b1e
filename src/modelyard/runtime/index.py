"""Index: the candidates that a query is answered with, and the vector of each.

Search is exact: one matrix product for each part of the queries. A million candidates of 384
numbers are 768 MB on disk, in half precision, and twice that in memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.digest import of_text

VECTORS, CANDIDATES, GRAPH = "index.npy", "candidates.jsonl", "graph.json"
HISTORY = "history.npy"
"""Beside the graph: what candidates that a row has seen add to its vector."""
MOST = 10
"""How many candidates an answer has."""
SCORES = 1 << 24
"""How many scores are held at once."""
NO_NAMES = (dict, list, tuple, set, frozenset, np.ndarray, bytes, type(None))
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """The ids, or texts, that answers are picked from: `only` these, or all, `without` those."""

    only: Sequence[str] | None = None
    without: Sequence[str] = ()


@dataclass(frozen=True)
class Ranked:
    """The candidates found for B rows, the best first: ids, texts and scores of each row's own."""

    ids: Sequence[Sequence[str]]
    texts: Sequence[Sequence[str]]
    scores: Sequence[Floats]

    def before(self, other: "Ranked") -> "Ranked":
        """These rows, and then the other's."""
        return Ranked(
            [*self.ids, *other.ids], [*self.texts, *other.texts], [*self.scores, *other.scores]
        )


@dataclass(frozen=True)
class Index:
    """N candidates: their ids, their texts, and their vectors (N, W) of length 1."""

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: Floats
    history: Floats | None = None
    """A matrix (W, W) from what a row has seen to a part of its vector, where that was learned."""

    def search(self, queries: Floats, most: int, among: Sequence[Pool] | None = None) -> Ranked:
        """The best of the candidates for each query (B, W), at most `most`, by cosine.

        `among` (B,) says for each query what it is ranked among; None is all for all.

        >>> index = Index(["a", "b"], ["A", "B"], np.eye(2, dtype=np.float32))
        >>> index.search(np.array([[0.1, 2.0]], np.float32), most=1).ids
        [['b']]
        """
        rows = max(1, SCORES // max(1, len(self.ids)))
        found = Ranked([], [], [])
        for start in range(0, len(queries), rows):
            some = slice(start, start + rows)
            own = None if among is None else among[some]
            vectors = unit(self._with_history(queries[some], own))
            found = found.before(self.ranked(vectors @ self.vectors.T, most, own))
        return found

    def _with_history(self, queries: Floats, among: Sequence[Pool] | None) -> Floats:
        if self.history is None or among is None:
            return queries
        sums = np.zeros_like(queries)
        for row, pool in enumerate(among):
            if len(seen := np.unique(self._known(pool.without))):
                sums[row] = self.vectors[seen].sum(0) / np.sqrt(len(seen))
        found: Floats = queries + sums @ self.history
        return found

    def ranked(self, scores: Floats, most: int, among: Sequence[Pool] | None = None) -> Ranked:
        """The best by scores (B, N), as `search` gives them."""
        pools = [Pool()] * len(scores) if among is None else among
        places = [
            best(own, most, self._places(pool)) for own, pool in zip(scores, pools, strict=True)
        ]
        return Ranked(
            [[self.ids[place] for place in own] for own in places],
            [[self.texts[place] for place in own] for own in places],
            [own[chosen] for own, chosen in zip(scores, places, strict=True)],
        )

    def _places(self, pool: Pool) -> Indices | None:
        """Where the candidates of a pool are; None is everywhere."""
        if pool.only is not None:
            only = self._known(pool.only)
            return only[~np.isin(only, self._known(pool.without))]
        if not pool.without:
            return None
        is_left = np.ones(len(self.ids), dtype=bool)
        is_left[self._known(pool.without)] = False
        return np.flatnonzero(is_left)

    def _known(self, names: Sequence[str]) -> Indices:
        """Where the candidates with these ids, or texts, are; of others nothing."""
        where = self.where
        ids = (each if each in where else of_text(each) for each in names)
        return np.array([where[each] for each in ids if each in where], dtype=np.int64)

    @cached_property
    def where(self) -> Mapping[str, int]:
        """The place of each id."""
        return {each: place for place, each in enumerate(self.ids)}

    def without(self, ids: Sequence[str]) -> "Index":
        """The candidates that are not named."""
        gone = set(ids)
        kept = [place for place, each in enumerate(self.ids) if each not in gone]
        ids, texts = ([own[place] for place in kept] for own in (self.ids, self.texts))
        return Index(ids, texts, self.vectors[kept], self.history)

    def beside(self, other: "Index") -> "Index":
        """These and the other's candidates; the other's stand for those of the same id."""
        own = self.without(other.ids)
        vectors = np.concatenate([own.vectors, other.vectors])
        ids, texts = [*own.ids, *other.ids], [*own.texts, *other.texts]
        return Index(ids, texts, vectors, self.history)

    def save(self, folder: Path, graph: str = "") -> None:
        """Write index.npy, in half precision, candidates.jsonl, and history.npy where there is one.

        Where they do not stand beside their graph, graph.json has its SHA-256.
        """
        if graph:
            (folder / GRAPH).write_text(json.dumps({"sha256": graph}) + "\n", encoding="utf-8")
        np.save(folder / VECTORS, self.vectors.astype(np.float16), allow_pickle=False)
        if self.history is not None:
            np.save(folder / HISTORY, self.history, allow_pickle=False)
        with (folder / CANDIDATES).open("w", encoding="utf-8") as lines:
            for each, text in zip(self.ids, self.texts, strict=True):
                lines.write(json.dumps({"id": each, "text": text}, ensure_ascii=False) + "\n")

    @staticmethod
    def made_for(folder: Path) -> str | None:
        """The SHA-256 of the graph that made the vectors in a folder, where it says so."""
        if not (folder / GRAPH).is_file():
            return None
        return str(json.loads((folder / GRAPH).read_text(encoding="utf-8"))["sha256"])

    @classmethod
    def load(cls, folder: Path) -> "Index | None":
        """The index in a folder, or None where there is none."""
        if not (folder / VECTORS).is_file():
            return None
        vectors = np.load(folder / VECTORS, allow_pickle=False).astype(np.float32)
        with (folder / CANDIDATES).open(encoding="utf-8") as lines:
            found: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
        ids, texts = ([str(each[key]) for each in found] for key in ("id", "text"))
        return cls(ids, texts, unit(vectors), history_in(folder))


def history_in(folder: Path) -> Floats | None:
    """The matrix that the folder of a Model or an index has for what rows have seen, if any."""
    file = folder / HISTORY
    return np.load(file, allow_pickle=False).astype(np.float32) if file.is_file() else None


def unit(vectors: Floats) -> Floats:
    """Vectors (N, W) of length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = vectors / np.maximum(lengths, 1e-12)
    return found


def best(scores: Floats, most: int, among: Indices | None = None) -> Indices:
    """The places of the highest scores (N,), the best first; of equal ones the first.

    >>> best(np.array([0.1, 0.9, 0.5], np.float32), 2).tolist()
    [1, 2]
    """
    places = np.arange(len(scores)) if among is None else among
    own = scores[places]
    if len(own) > most:
        top = np.argpartition(-own, most - 1)[:most]
        top = np.sort(top)
    else:
        top = np.arange(len(own))
    order = np.argsort(-own[top], kind="stable")
    found: Indices = places[top[order]]
    return found


def named(value: Any) -> list[str]:
    """The ids or texts of candidates in a value, each once; raises ValueError where there are none.

    >>> named('["a2", "a7"]'), named("Yes, it does.")
    (['a2', 'a7'], ['Yes, it does.'])
    """
    if not (found := names_in(value)):
        raise ValueError("names no candidate")
    return found


def names_in(value: Any) -> list[str]:
    """As `named`, but that there may be none.

    >>> names_in("[]"), names_in(["a2", "a2"])
    ([], ['a2'])
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _listed(value)
    parts = _parts(value)
    if any(isinstance(part, NO_NAMES) for part in parts):
        raise ValueError("holds a list of something else than ids or texts")
    names = [str(part).strip() for part in parts]
    if any(name.encode("utf-8", "ignore").decode() != name for name in names):
        raise ValueError("holds half a surrogate pair, which is no character")
    return list(dict.fromkeys(filter(None, names)))


def _parts(value: Any) -> Sequence[Any]:
    """What a list, tuple, set or array holds, a set in one order; or the value alone."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value if isinstance(value, list | tuple) else [value]


def _listed(value: str) -> Any:
    """A JSON list in a text, or the text where it is no such list."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) else value
