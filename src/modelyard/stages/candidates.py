"""Candidates of a Dataset, for the stages: their vectors, what is paired, plain baselines."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modelyard import inputs
from modelyard.core.artefacts import Dataset, Model, ModelSpec
from modelyard.core.events import Decided, Events, Progress
from modelyard.data.candidates import FILE, ID, TEXT
from modelyard.inputs import networks
from modelyard.inputs.plain import PlainTable
from modelyard.runtime.columns import PRESENT, Columns, Group, groups_of, is_missing
from modelyard.runtime.encoded import Encoded, PieceOutputs, of_pieces, of_rows, side_by_side
from modelyard.runtime.index import MOST, Index, Pool, Ranked, best, unit

UNTRAINED = "untrained.npy"
"""Of a Model: the candidates' vectors (N, W) by the backbone as it came; no part of a release."""
SOME_ROWS = 512
NONE = -1
HARDEST = 8
MOST_DRAWN = 8
"""Candidates drawn in search of a wrong one, before all are looked at."""
MOST_TOGETHER = 8
"""Right candidates that a row stands beside at once."""
OFTEN = 5
"""For how many rows a candidate is right, on average, where it recurs."""
NEARLY_RIGHT = 0.95
"""A candidate that scores more than this share of a right one may be right itself."""
Vectors = NDArray[np.float32]
Truths = Sequence[dict[str, Any]]
Pairs = list[tuple[int, list[int], list[int]]]
"""Of a row the numbers of a wrong candidate or NONE, of its own ones, and of all fair ones."""


@dataclass(frozen=True)
class Candidates:
    """The N candidates of a Dataset, encoded as a query is."""

    ids: list[str]
    texts: list[str]
    encoded: Encoded

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        spec: ModelSpec,
        columns: Columns,
        only: Sequence[str] | None = None,
        is_lean: bool = False,
    ) -> "Candidates":
        """All of a Dataset's candidates, or those with certain ids; lean as `Columns.encode`."""
        table = pq.read_table(dataset.folder / FILE)
        ids, texts = (table[name].to_pylist() for name in (ID, TEXT))
        if only is not None:
            text_of = dict(zip(ids, texts, strict=True))
            ids = list(dict.fromkeys(only))
            texts = [text_of[each] for each in ids]
        assert spec.candidate is not None
        return cls(ids, texts, columns.encode({spec.candidate.column: texts}, is_lean))

    def index(
        self, run: Callable[[Encoded], PieceOutputs], history: Vectors | None = None
    ) -> Index:
        """The candidates with the vectors that a network or a graph gives them."""
        found = of_rows(run(self.encoded), self.encoded)
        assert isinstance(found, np.ndarray)
        return Index(self.ids, self.texts, unit(found), history)


@dataclass(frozen=True)
class Pairing:
    """Candidates, and how the backbone sees them before it is trained."""

    candidates: Candidates
    untrained: Vectors
    """Of the candidates (N, W)."""
    reader: "Reader"
    are_asked: bool
    """Whether rows have the text that candidates are told by."""
    width: int
    events: Events

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        folder_of: Callable[[Group], Path],
        dataset: Dataset,
        kept: Path,
        events: Events,
    ) -> "Pairing":
        """Read a Dataset's candidates and see them; `kept` spares a resumed training the look."""
        columns = Columns.open(spec.columns, folder_of, inputs.find, spec.unasked)
        candidates = Candidates.of(dataset, spec, columns, is_lean=True)
        reader = Reader.of(spec, folder_of, events)
        file = kept / UNTRAINED
        if not file.is_file():
            found = reader.vectors(candidates.encoded, "looking at the candidates")
            draft = file.with_suffix(".draft.npy")
            np.save(draft, found.astype(np.float16), allow_pickle=False)
            draft.rename(file)
        untrained = unit(np.load(file, allow_pickle=False).astype(np.float32))
        width = int(spec.target.state["width"])
        return cls(candidates, untrained, reader, not spec.unasked, width, events)

    def save(self, out: Path) -> None:
        """Keep the candidates' vectors for the audit."""
        np.save(out / UNTRAINED, self.untrained.astype(np.float16), allow_pickle=False)

    def own(self, rows: Encoded, truths: Truths) -> tuple[Encoded, Pairs]:
        """Each row beside the first of its right candidates."""
        pairs = [(NONE, right[:1], fair) for right, fair in self.numbers(truths)]
        own = np.array([own for _, [own], _ in pairs], dtype=np.int64)
        sides = {"query": rows, "right0": self.candidates.encoded.at(own)}
        return (side_by_side(sides) if pairs else rows), pairs

    def mined(self, rows: Encoded, truths: Truths, seed: int) -> tuple[Encoded, Pairs]:
        """Each row beside its right candidates, and beside one that is wrong but near.

        It stands there again and again where it has more than rows have on average, or than 8.
        Near is what the untrained backbone takes for it: one of the 8 nearest that score less than
        95 % of the right one, drawn by chance. Moreira, G. et al. (2024), NV-Retriever, section 3.
        Where rows have no text, any wrong one may be drawn.
        """
        rng = np.random.default_rng(seed)
        pairs: Pairs = []
        places: list[int] = []
        together = together_in(truths)
        scored = zip(self._scores(rows), self.numbers(truths), strict=True)
        for row, (scores, (right, fair)) in enumerate(scored):
            for own in _chunks(right, together, rng):
                pairs.append((self._wrong(scores, own[0], fair, rng), own, fair))
                places.append(row)
        encoded = self.candidates.encoded
        sides = {
            "query": rows.at(np.array(places)),
            "wrong": encoded.at(np.array([wrong for wrong, _, _ in pairs])),
        }
        for place in range(together):
            sides[f"right{place}"] = encoded.at(np.array([own[place] for _, own, _ in pairs]))
        self._tell(len(truths), len(pairs), together)
        return side_by_side(sides), pairs

    def _tell(self, rows: int, pairs: int, together: int) -> None:
        right = "a right candidate" if together == 1 else f"{together} right candidates"
        wrong = "a near miss" if self.are_asked else "a wrong one"
        told = f"{pairs:,} of {rows:,} rows, each with {right} and {wrong}"
        self.events(Decided("pairs", told, "what is wrong but near teaches most"))

    def log_shares(self, pairs: Pairs) -> Vectors:
        """By how much each candidate is seen (N,), as the logarithm of its share of all."""
        seen = [each for wrong, own, _ in pairs for each in (wrong, *own)]
        counts = np.bincount(np.array(seen, dtype=np.int64), minlength=len(self.candidates.ids))
        found: Vectors = np.log((counts + 1) / (counts + 1).sum()).astype(np.float32)
        return found

    def _scores(self, rows: Encoded) -> Iterator[Vectors | None]:
        """How near the backbone takes each candidate (N,) to a row, for rows that have texts."""
        if not self.are_asked:
            yield from [None] * rows.rows
            return
        queries = self.reader.vectors(rows, "looking for near misses")
        for start in range(0, len(queries), SOME_ROWS):
            yield from queries[start : start + SOME_ROWS] @ self.untrained.T

    def _wrong(
        self, scores: Vectors | None, own: int, fair: Sequence[int], rng: np.random.Generator
    ) -> int:
        if scores is not None:
            return _near_miss(scores, own, fair, rng)
        for each in rng.integers(len(self.candidates.ids), size=MOST_DRAWN).tolist():
            if each not in fair:
                return int(each)
        wrong = np.setdiff1d(np.arange(len(self.candidates.ids)), fair)  # slow where many are
        return int(rng.choice(wrong)) if len(wrong) else own

    def numbers(self, truths: Truths) -> Iterator[tuple[list[int], list[int]]]:
        """The numbers of each row's right candidates, and of all that are not wrong for it."""
        number = {each: n for n, each in enumerate(self.candidates.ids)}
        for truth in truths:
            right, seen = ([number[each] for each in truth[n] or ()] for n in ("right", "seen"))
            yield right, [*right, *seen]

    def ranked(self, outputs: Any, truths: Truths) -> Ranked:
        """The best for validation rows, among their own candidates, from both vectors (B, 2 W)."""
        found = {truth["right"][0]: row for row, truth in enumerate(truths)}
        rows = list(found.values())
        index = Index(list(found), [""] * len(found), unit(outputs[rows, self.width :]))
        return index.search(outputs[:, : self.width], MOST, pools_of(truths))


def together_in(truths: Truths) -> int:
    """How many right candidates a row has, on average: a row is read once for all of these."""
    mean = np.mean([len(truth["right"]) for truth in truths]) if truths else 1
    return int(min(MOST_TOGETHER, max(1, round(float(mean)))))


def _chunks(right: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """All in chunks of a size, in any order; the last is filled up with some of them again.

    >>> list(_chunks([4, 5], 1, np.random.default_rng(0)))
    [[4], [5]]
    """
    mixed = list(right) if size == 1 else rng.permutation(right).tolist()
    for start in range(0, len(mixed), size):
        chunk = mixed[start : start + size]
        yield chunk + (mixed * size)[: size - len(chunk)]


def pools_of(truths: Truths) -> list[Pool]:
    """What rows with these truths are ranked among."""
    return [Pool(truth["pool"], truth["seen"] or ()) for truth in truths]


def _near_miss(scores: Vectors, own: int, fair: Sequence[int], rng: np.random.Generator) -> int:
    """The number of a candidate that is wrong, but near; the farthest where all are too near."""
    able = scores.copy()
    able[fair] = -np.inf
    able[scores > NEARLY_RIGHT * max(0.0, float(scores[own]))] = -np.inf
    nearest = best(able, HARDEST)
    nearest = nearest[np.isfinite(able[nearest])]
    if len(nearest):
        return int(rng.choice(nearest))
    wrong = np.setdiff1d(np.arange(len(scores)), fair)
    return int(wrong[scores[wrong].argmin()]) if len(wrong) else own


@dataclass(frozen=True)
class Reader:
    """The backbone as it came, for the text that a candidate is told by."""

    network: Any
    columns: Columns
    """That text alone."""
    group: str
    """Where it stands among the arrays of rows."""
    events: Events

    @classmethod
    def of(cls, spec: ModelSpec, folder_of: Callable[[Group], Path], events: Events) -> "Reader":
        """Load it, with all its layers."""
        from modelyard.models.precision import quick

        assert spec.candidate is not None
        own = spec.candidate
        groups = groups_of(spec.columns, inputs.find)
        [group] = [each.name for each in groups if own in each.columns]
        whole = own.model_copy(update={"state": {**own.state, "layers": None}})
        network = networks.make([whole], folder_of, int(spec.target.state["width"]), dropout=0.0)
        return cls(quick(network), Columns.open([own], folder_of, inputs.find), group, events)

    def read(self, texts: Sequence[Any], what: str) -> Vectors:
        """The vectors of texts (B, W), of length 1."""
        [(name, blank)] = self.columns.blanks.items()
        filled = [blank if is_missing(text) else text for text in texts]
        return self._vectors(self.columns.encode({name: filled}), what)

    def vectors(self, rows: Encoded, what: str) -> Vectors:
        """The vectors of the texts in encoded rows (B, W), of length 1."""
        return self._vectors(self._texts(rows), what)

    def _texts(self, rows: Encoded) -> Encoded:
        if not self.group:
            return rows
        prefix = f"{self.group}."
        arrays = {
            name.removeprefix(prefix): array
            for name, array in rows.arrays.items()
            if name.startswith(prefix) and name != prefix + PRESENT
        }
        return replace(rows, arrays=arrays)

    def _vectors(self, encoded: Encoded, what: str) -> Vectors:
        import torch

        from modelyard.models import workers
        from modelyard.models.evaluation import outputs_of

        parts = []
        with workers.side_by_side(min(workers.MOST_WORKERS, torch.get_num_threads())) as each:
            for start in range(0, encoded.rows, SOME_ROWS):
                self.events(Progress(what, start, encoded.rows, "texts"))
                some = encoded.at(np.arange(start, min(start + SOME_ROWS, encoded.rows)))
                outputs = outputs_of(self.network, some, each)
                found = of_rows(of_pieces(outputs, len(outputs[0])), some)
                assert isinstance(found, np.ndarray)
                parts.append(unit(found))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Plain:
    """What plain ways to rank candidates answer test rows with."""

    dataset: Dataset
    model: Model
    folder_of: Callable[[Group], Path]
    events: Events

    def most_frequent(self, pools: Sequence[Pool]) -> Ranked:
        """By how many training rows each is right for, whatever is asked."""
        index, number = self._index(), self._counts()
        counts = np.array([number[each] for each in index.ids], dtype=np.float32)
        return index.ranked(np.broadcast_to(counts, (len(pools), len(counts))), MOST, pools)

    def bm25(self, queries: Sequence[str], pools: Sequence[Pool]) -> Ranked:
        """By the words they share with the query."""
        from modelyard.models.bm25 import BM25

        index = self._index()
        known = BM25(index.texts)
        return _in_parts(index, lambda some: known.scores(queries[some]), pools)

    def untrained(self, texts: Sequence[Any], pools: Sequence[Pool]) -> Ranked:
        """By the backbone as it came."""
        reader = Reader.of(self.model.spec, self.folder_of, self.events)
        return self._index().search(reader.read(texts, "asking the backbone"), MOST, pools)

    def factorised(self, rows: Sequence[Mapping[str, Any]], pools: Sequence[Pool]) -> Ranked:
        """By the factors that plain features of rows share with candidates."""
        from modelyard.models.factorised import Factorised

        sources = self.model.spec.inputs
        index, table = self._index(), PlainTable(sources)
        learned = self._training([source.column for source in sources])
        right = [[index.where[own] for own in each["right"]] for each in self._truths]
        known = Factorised(table.fit_transform(learned), right, len(index.ids))
        asked = table.transform({s.column: [row[s.column] for row in rows] for s in sources})
        return _in_parts(index, lambda some: known.scores(asked[some]), pools)

    @property
    def recurs(self) -> bool:
        """Whether most candidates are right for several training rows, as what people buy is."""
        counts = self._counts()
        return sum(counts.values()) >= OFTEN * len(counts)

    def _counts(self) -> Counter[str]:
        """For how many training rows each candidate is right."""
        return Counter(each for own in self._truths for each in own["right"])

    @cached_property
    def _truths(self) -> list[Any]:
        """Those of the training rows; what else these hold, such as pictures, may be large."""
        name = self.model.spec.target.column
        return self._training([name])[name]

    def _training(self, names: Sequence[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = pq.read_table(
            self.dataset.part("train"), columns=list(names)
        ).to_pydict()
        return found

    def _index(self) -> Index:
        table = pq.read_table(self.dataset.folder / FILE)
        seen = np.load(self.model.folder / UNTRAINED, allow_pickle=False).astype(np.float32)
        return Index(table[ID].to_pylist(), table[TEXT].to_pylist(), unit(seen))


def _in_parts(index: Index, scores: Callable[[slice], Vectors], pools: Sequence[Pool]) -> Ranked:
    """The best by the scores of some rows at a time: those of all for all are too many."""
    ranked = Ranked([], [], [])
    for start in range(0, len(pools), SOME_ROWS):
        some = slice(start, start + SOME_ROWS)
        ranked = ranked.before(index.ranked(scores(some), MOST, pools[some]))
    return ranked
