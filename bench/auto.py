"""The rung that `compress.target = "auto"` picks with a point allowed, beside a pipeline."""

import csv
import statistics
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, measures, of_runs
from bench.projects import from_rows, parts, phrasebank, phrasebank_unlabelled, rows_of, run
from bench.rates import Predicted, predicted
from modelyard.checks.difference import difference

RUNS = 5
POINTS = 100
PROJECT = ("train.seed=1", "data.split.validation=0.2")
"""Rows enough that a point can be seen: a fifth of the sentences choose the rung."""


UNLABELLED = "unlabelled.csv"
CLIMB = (
    "compress.target=auto",
    "compress.max_loss=0.01",
    f"compress.unlabelled={UNLABELLED}",
)


@dataclass(frozen=True)
class Climb:
    """What the climb picked, and the rows that neither training nor climb has seen."""

    rung: str
    release: Path
    as_trained: Path
    texts: list[str]
    truth: list[str]


@measures("auto")
def auto() -> list[Figure]:
    """Texts a second and accuracy at that rung, and of a pipeline on the trained network."""
    climb = _climb()
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(predicted("modelyard", climb.release, climb.texts))
        theirs.append(predicted("pipeline", climb.as_trained, climb.texts))
    ratios = [a.rate / b.rate for a, b in zip(ours, theirs, strict=True)]
    said = (
        f"Financial PhraseBank AllAgree, {len(climb.texts):,} test rows, a fifth of the rows chose "
        f"the rung, {climb.rung}; smaller networks learned from the sentences that fewer "
        "annotators agreed on too, without their labels; in turn, this project "
        f"{statistics.median(each.rate for each in ours):.0f}, pipeline(batch_size=32) on the "
        f"trained network in fp32 {statistics.median(each.rate for each in theirs):.0f} texts/s"
    )
    return [
        of_runs("engine at the rung of auto: texts/s over pipeline's", ratios, 15, ">=", "×", said),
        _lost(climb, ours[0], theirs[0], said),
    ]


def _climb() -> Climb:
    folder = from_rows("phrasebank", phrasebank())
    plain = run(folder, *PROJECT)  # first, so that both learn from one training
    with (folder / UNLABELLED).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in phrasebank_unlabelled())])
    found = run(folder, *PROJECT, *CLIMB)
    rows = rows_of(parts(folder, *PROJECT) / "test.parquet")
    texts, truth = [text for text, _ in rows], [label for _, label in rows]
    rung = str(found["compression"]["choice"])
    return Climb(rung, Path(found["release"]), Path(plain["release"]), texts, truth)


def _lost(climb: Climb, ours: Predicted, theirs: Predicted, said: str) -> Figure:
    pairs = ([{"label": label} for label in each.labels] for each in (theirs, ours))
    lost = difference(climb.truth, *pairs)
    value, low, high = (POINTS * each for each in (lost.value, lost.low, lost.high))
    told = f"{said}; paired 95 % interval"
    return Figure(
        "rung of auto: accuracy lost on test rows", value, low, high, 1, "<=", "points", told
    )
