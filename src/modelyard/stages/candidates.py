"""Candidates of a Dataset, for the stages: their vectors, what is paired, plain baselines."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from modelyard.runtime.columns import Columns, Group
from modelyard.runtime.encoded import Encoded, PieceOutputs, of_pieces, of_rows, side_by_side
from modelyard.runtime.index import MOST, Index, Ranked, best, unit

UNTRAINED = "untrained.npy"
"""Of a Model: the candidates' vectors (N, W) by the backbone as it came; no part of a release."""
SOME_ROWS = 512
NONE = -1
HARDEST = 8
NEARLY_RIGHT = 0.95
"""A candidate that scores more than this share of a right one may be right itself."""
Vectors = NDArray[np.float32]
Truths = Sequence[dict[str, Any]]
Pairs = list[tuple[int, int, list[int]]]
"""Of each pair the numbers of its candidate, of a wrong one or NONE, and of all right ones."""


@dataclass(frozen=True)
class Candidates:
    """The N candidates of a Dataset, encoded as a query is."""

    ids: list[str]
    texts: list[str]
    encoded: Encoded

    @classmethod
    def of(
        cls, dataset: Dataset, columns: Columns, only: Sequence[str] | None = None
    ) -> "Candidates":
        """All of a Dataset's candidates, or those with certain ids."""
        table = pq.read_table(dataset.folder / FILE)
        ids, texts = (table[name].to_pylist() for name in (ID, TEXT))
        if only is not None:
            text_of = dict(zip(ids, texts, strict=True))
            ids = list(dict.fromkeys(only))
            texts = [text_of[each] for each in ids]
        return cls(ids, texts, columns.encode({columns.names[0]: texts}))

    def index(self, run: Callable[[Encoded], PieceOutputs]) -> Index:
        """The candidates with the vectors that a network or a graph gives them."""
        found = of_rows(run(self.encoded), self.encoded)
        assert isinstance(found, np.ndarray)
        return Index(self.ids, self.texts, unit(found))


@dataclass(frozen=True)
class Pairing:
    """Candidates, and how the backbone sees them before it is trained."""

    candidates: Candidates
    untrained: Vectors
    """Of the candidates (N, W)."""
    network: Any
    """The backbone as it came."""
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
        columns = Columns.open(spec.inputs, folder_of, inputs.find)
        candidates = Candidates.of(dataset, columns)
        width = int(spec.target.state["width"])
        network = networks.make(spec.inputs, folder_of, width, dropout=0.0)
        file = kept / UNTRAINED
        if not file.is_file():
            found = vectors(network, candidates.encoded, events, "looking at the candidates")
            draft = file.with_suffix(".draft.npy")
            np.save(draft, found.astype(np.float16), allow_pickle=False)
            draft.rename(file)
        untrained = unit(np.load(file, allow_pickle=False).astype(np.float32))
        return cls(candidates, untrained, network, width, events)

    def save(self, out: Path) -> None:
        """Keep the candidates' vectors for the audit."""
        np.save(out / UNTRAINED, self.untrained.astype(np.float16), allow_pickle=False)

    def own(self, rows: Encoded, truths: Truths) -> tuple[Encoded, Pairs]:
        """Each row beside the first of its right candidates."""
        pairs = [(right[0], NONE, right) for right in self._right(truths)]
        own = np.array([pair[0] for pair in pairs], dtype=np.int64)
        sides = {"query": rows, "candidate": self.candidates.encoded.at(own)}
        return (side_by_side(sides) if pairs else rows), pairs

    def mined(self, rows: Encoded, truths: Truths, seed: int) -> tuple[Encoded, Pairs]:
        """Each row beside each of its right candidates, and beside one that is wrong but near.

        Near is what the untrained backbone takes for it: one of the 8 nearest that score less than
        95 % of the right one, drawn by chance. Moreira, G. et al. (2024), NV-Retriever, section 3.
        """
        queries = vectors(self.network, rows, self.events, "looking for near misses")
        rng = np.random.default_rng(seed)
        pairs: Pairs = []
        places: list[int] = []
        for row, right in enumerate(self._right(truths)):
            scores = self.untrained @ queries[row]
            for own in right:
                pairs.append((own, _near_miss(scores, own, right, rng), right))
                places.append(row)
        number = np.array([pair[:2] for pair in pairs], dtype=np.int64)
        sides = {
            "query": rows.at(np.array(places)),
            "candidate": self.candidates.encoded.at(number[:, 0]),
            "negative": self.candidates.encoded.at(number[:, 1]),
        }
        told = f"{len(pairs):,} pairs of {len(truths):,} rows, each with a near miss"
        self.events(Decided("pairs", told, "what is wrong but near teaches most"))
        return side_by_side(sides), pairs

    def _right(self, truths: Truths) -> list[list[int]]:
        """The numbers of each row's right candidates."""
        number = {each: n for n, each in enumerate(self.candidates.ids)}
        return [[number[each] for each in truth["right"]] for truth in truths]

    def ranked(self, outputs: Any, truths: Truths) -> Ranked:
        """The best for validation rows, among their own candidates, from both vectors (B, 2 W)."""
        found = {truth["right"][0]: row for row, truth in enumerate(truths)}
        rows = list(found.values())
        index = Index(list(found), [""] * len(found), unit(outputs[rows, self.width :]))
        return index.search(outputs[:, : self.width], MOST)


def _near_miss(scores: Vectors, own: int, right: Sequence[int], rng: np.random.Generator) -> int:
    """The number of a candidate that is wrong, but near; the farthest where all are too near."""
    able = scores.copy()
    able[right] = -np.inf
    able[scores > NEARLY_RIGHT * max(0.0, float(scores[own]))] = -np.inf
    nearest = best(able, HARDEST)
    nearest = nearest[np.isfinite(able[nearest])]
    if len(nearest):
        return int(rng.choice(nearest))
    wrong = np.setdiff1d(np.arange(len(scores)), right)
    return int(wrong[scores[wrong].argmin()]) if len(wrong) else own


def vectors(network: Any, encoded: Encoded, events: Events, what: str) -> Vectors:
    """A network's vectors of rows (B, W), of length 1."""
    from modelyard.models.export import network_outputs

    parts = []
    for start in range(0, encoded.rows, SOME_ROWS):
        events(Progress(what, start, encoded.rows, "texts"))
        some = encoded.at(np.arange(start, min(start + SOME_ROWS, encoded.rows)))
        outputs = network_outputs(network, some)
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

    def most_frequent(self, pools: Sequence[Any]) -> Ranked:
        """By how many training rows each is right for, whatever is asked."""
        index = self._index()
        column = self.model.spec.target.column
        truths = pq.read_table(self.dataset.part("train"), columns=[column])[column].to_pylist()
        number = Counter(each for truth in truths for each in truth["right"])
        counts = np.array([number[each] for each in index.ids], dtype=np.float32)
        return index.ranked(np.broadcast_to(counts, (len(pools), len(counts))), MOST, pools)

    def bm25(self, queries: Sequence[str], pools: Sequence[Any]) -> Ranked:
        """By the words they share with the query."""
        from modelyard.models.bm25 import BM25

        index = self._index()
        known = BM25(index.texts)
        ranked = Ranked([], [], [])
        for start in range(0, len(queries), SOME_ROWS):
            some = slice(start, start + SOME_ROWS)
            scores = known.scores(queries[some])
            ranked = ranked.before(index.ranked(scores, MOST, pools[some]))
        return ranked

    def untrained(self, values: dict[str, Sequence[Any]], pools: Sequence[Any]) -> Ranked:
        """By the backbone as it came."""
        spec = self.model.spec
        columns = Columns.open(spec.inputs, self.folder_of, inputs.find)
        network = networks.make(spec.inputs, self.folder_of, 0, dropout=0.0)
        queries = vectors(network, columns.encode(values), self.events, "asking the backbone")
        return self._index().search(queries, MOST, pools)

    def _index(self) -> Index:
        table = pq.read_table(self.dataset.folder / FILE)
        seen = np.load(self.model.folder / UNTRAINED, allow_pickle=False).astype(np.float32)
        return Index(table[ID].to_pylist(), table[TEXT].to_pylist(), unit(seen))
