"""Match: insurance questions and their answers; households and what they buy next."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.figures import Figure, SureFigure, measures
from bench.projects import from_sample, run
from modelyard.runtime.index import MOST, best

SETTINGS = ("train.minutes=20", "train.learning_rate=0.00005")
OVER_BM25 = 1.5
GROCERY = (
    # what a household has is in `seen`: the text only says what it bought last
    'inputs.history={kind = "text", layers = 1, window_tokens = 32, windows = 1}',
    "train.epochs=8",
    "train.batch_rows=128",
    "train.learning_rate=1e-3",
)


@measures("insurance-faq")
def insurance_faq() -> list[Figure]:
    """The 2,000 test questions, each among its right answers and the 200 given wrong ones."""
    report = run(from_sample("insurance-faq"), *SETTINGS)
    recall = _recall(report["measures"])
    bm25, untrained = (_baseline(report, name) for name in ("BM25", "untrained backbone"))
    theirs, difference = _recall(bm25["measures"])["value"], untrained["difference"]
    said = (
        f"{recall['rows']:,} test questions among their own pools, as released "
        f"({report['compression']['choice']}), seed 7; "
        f"BM25 {theirs:.4f}, untrained backbone {_recall(untrained['measures'])['value']:.4f}"
    )
    low, value, high = (recall[end] / theirs for end in ("low", "value", "high"))
    return [
        Figure("insurance-faq: recall@1 as a multiple of BM25's", value, low, high, OVER_BM25,
               ">=", "", f"{said}; Wilson 95 % interval of the recall {recall['value']:.4f}"),
        Figure("insurance-faq: recall@1 over the untrained backbone", difference["value"],
               difference["low"], difference["high"], 0.0, ">", "",
               f"{said}; paired 95 % interval"),
    ]  # fmt: skip


def _recall(measured: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in measured if each["name"] == "recall_at_1")


def _baseline(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["baselines"] if each["name"] == name)


FACTORS = (4, 8, 16, 32, 64)
RESAMPLES = 1000
GAINS = 1 / np.log2(np.arange(MOST) + 2)
Floats = NDArray[np.float64]
Row = dict[str, Any]


@measures("grocery")
def grocery() -> list[Figure]:
    """The last month's new kinds of product, beside popularity and factors of households."""
    folder = from_sample("grocery")
    report = run(folder, *GROCERY)
    purchases = Purchases(folder)
    rows = list(_answered(purchases, Path(report["report_folder"])))
    own = np.array([each for _, each in rows])
    asked = [row for row, _ in rows]
    counts = purchases.bought.sum(0)
    popular = np.array([_ndcg(row, purchases.ranked(row, counts)) for row in asked])
    factors, scores = purchases.factorised()
    shared = np.array(
        [_ndcg(row, purchases.ranked(row, scores[row["household"]])) for row in asked]
    )
    said = (
        f"{len(asked):,} households, the last month, new kinds only, seed 7; this project "
        f"{own.mean():.4f}, popularity {popular.mean():.4f}, matrix factorisation "
        f"{shared.mean():.4f} ({factors} singular vectors of households × kinds, chosen on the "
        "validation rows); paired 95 % interval, bootstrap over households"
    )
    return [
        _ahead("grocery: NDCG@10 over popularity", own - popular, said),
        _ahead("grocery: NDCG@10 over matrix factorisation", own - shared, said),
    ]


@dataclass(frozen=True)
class Purchases:
    """The sample's rows, and which kinds each household bought for the first time."""

    folder: Path

    @cached_property
    def rows(self) -> list[Row]:
        """All of them, in the order of the file."""
        with (self.folder / "rows.jsonl").open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    @cached_property
    def kinds(self) -> dict[str, int]:
        """The number of each kind by its id."""
        with (self.folder / "candidates.jsonl").open(encoding="utf-8") as file:
            return {json.loads(line)["id"]: number for number, line in enumerate(file)}

    @cached_property
    def bought(self) -> Floats:
        """Whether a household bought a kind before the last month (H, N)."""
        return self._until(("train", "validation"))

    def _until(self, parts: tuple[str, ...]) -> Floats:
        found = np.zeros((max(row["household"] for row in self.rows) + 1, len(self.kinds)))
        for row in self.rows:
            if row["split"] in parts:
                numbers = [self.kinds[own] for own in (*row["bought_before"], *row["bought"])]
                found[row["household"], numbers] = 1
        return found

    def ranked(self, row: Row, scores: Floats) -> list[int]:
        """The kinds with the highest scores that a row has not seen."""
        able = np.ones(len(scores), dtype=bool)
        able[[self.kinds[own] for own in row["bought_before"]]] = False
        found = best(scores.astype(np.float32), MOST, np.flatnonzero(able))
        return [int(each) for each in found]

    def factorised(self) -> tuple[int, Floats]:
        """Scores (H, N) by as many factors as were best for the validation rows."""
        earlier = self._until(("train",))
        validation = [row for row in self.rows if row["split"] == "validation"]
        found = {}
        for factors in FACTORS:
            scores = _factorised(earlier, factors)
            found[factors] = np.mean(
                [
                    _ndcg(self._numbered(r), self.ranked(r, scores[r["household"]]))
                    for r in validation
                ]
            )
        chosen = max(found, key=lambda factors: float(found[factors]))
        return chosen, _factorised(self.bought, chosen)

    def _numbered(self, row: Row) -> Row:
        return {**row, "right": {self.kinds[own] for own in row["bought"]}}


def _factorised(bought: Floats, factors: int) -> Floats:
    """Cremonesi, P. et al. (2010), section 4: PureSVD."""
    from sklearn.decomposition import TruncatedSVD

    vectors = TruncatedSVD(factors, random_state=0).fit(bought).components_
    found: Floats = bought @ vectors.T @ vectors
    return found


def _answered(purchases: Purchases, report: Path) -> Iterator[tuple[Row, float]]:
    """Each test row with the numbers of its right kinds, and the release's NDCG there."""
    for told in pq.read_table(report / "predictions.parquet").to_pylist():
        right = {purchases.kinds[own] for own in json.loads(told["truth"])["right"]}
        row = {**purchases.rows[told["_row"] - 1], "right": right}
        numbers = [purchases.kinds[each["id"]] for each in json.loads(told["candidates"])]
        yield row, _ndcg(row, numbers)


def _ndcg(row: Row, numbers: list[int]) -> float:
    hits = np.array([number in row["right"] for number in numbers])
    return float(hits @ GAINS[: len(hits)] / GAINS[: min(MOST, len(row["right"]))].sum())


def _ahead(name: str, differences: Floats, said: str) -> SureFigure:
    rows = len(differences)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
    low, high = np.quantile(drawn @ differences / rows, [0.025, 0.975])
    mean = float(differences.mean())
    return SureFigure(name, mean, float(low), float(high), 0.0, ">", "", said)
