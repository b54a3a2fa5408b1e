"""Rates against the field's usual way, measured in turn: training and prediction."""

import csv
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import ceiling
from bench.figures import WORK, Figure, measures, of_runs
from bench.projects import from_rows, from_sample, modelyard, parts, phrasebank, rows_of, run
from modelyard import load
from modelyard.checks.difference import Difference, difference
from modelyard.models import backbones

RUNS = 5
SHORT_ROWS = 1280
GIGA = 1e9
WAYS = {"fp32": "fp32, defaults", "bf16": "bf16, grouped by length"}
TRAINER_RATE, OUR_RATE = 5e-5, 1e-4
"""Trainer's default, and this project's."""
GOOD, NEARLY_GOOD, TIME_EPOCHS, TIME_SEEDS = 0.96, 0.94, 6, (1, 2)
"""Where neither is ever so good, the time until they are nearly so says more."""
Course = tuple[Sequence[float], float]
"""The accuracy after each epoch of a training, and its seconds in all."""
FEW = 20
ACCURACY_EPOCHS = 2
ACCURACY_SEEDS = (1, 2)


@measures("training-rate")
def training_rate() -> list[Figure]:
    """Rows a second in training, one epoch, this project and transformers.Trainer in turn.

    Of all the whole epoch counts, batches and steps; of none an evaluation.
    """
    dataset = parts(from_sample("reviews"))
    rows = random.Random(0).sample(rows_of(dataset / "train.parquet"), SHORT_ROWS)
    folder = from_rows("training-rate", rows)
    shutil.rmtree(folder / ".modelyard", ignore_errors=True)  # a rate of another day says nothing
    ours, precisions = [], set[str]()
    theirs: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(RUNS):
        settings = ("train.epochs=1", "train.patience=0", f"train.seed={seed}")
        record = _record(folder, *settings)
        precisions.add(record["precision"])
        ours.append(record["rows_per_s"])
        for way, found in theirs.items():
            found.append(_trainer(folder, epochs=1, seed=seed, way=way)["rows_per_s"])
    said = (
        f"minilm, {SHORT_ROWS:,} reviews, 1 epoch, 32 rows a step, in turn; this project "
        f"({' and '.join(sorted(precisions))}, without the trial that chose it) "
        f"{statistics.median(ours):.0f}, Trainer "
        + ", ".join(f"({WAYS[way]}) {statistics.median(own):.0f}" for way, own in theirs.items())
        + " rows/s"
    )
    over = {way: [a / b for a, b in zip(ours, own, strict=True)] for way, own in theirs.items()}
    return [
        of_runs("training rows/s over Trainer's in fp32", over["fp32"], 4, ">=", "×", said),
        of_runs("training rows/s over Trainer's in bf16", over["bf16"], 1.7, ">=", "×", said),
    ]


@measures("training-time")
def training_time() -> list[Figure]:
    """Seconds of training until held rows of Financial PhraseBank are answered so well.

    Both are looked at after each epoch, on the same rows: those that steer this project's training.
    """
    folder = _with_a_fifth_held(phrasebank())
    truth = [label for _, label in rows_of(parts(folder) / "validation.parquet")]
    ours: list[Course] = []
    theirs: list[Course] = []
    for seed in TIME_SEEDS:
        settings = (f"train.epochs={TIME_EPOCHS}", "train.patience=0", f"train.seed={seed}")
        record = _record(folder, *settings)
        own = [line["accuracy"] for line in record["epochs"]]
        ours.append((own, record["training_seconds"]))
        found = _trainer(folder, TIME_EPOCHS, seed, rate=OUR_RATE, part="validation")
        accuracies = [
            statistics.mean(a == b for a, b in zip(truth, labels, strict=True))
            for labels in found["epoch_labels"]
        ]
        theirs.append((accuracies, found["seconds"]))
    return [_time_to(good, len(truth), ours, theirs) for good in (GOOD, NEARLY_GOOD)]


def _time_to(
    good: float, rows: int, our_courses: Sequence[Course], their_courses: Sequence[Course]
) -> Figure:
    ours, theirs = (
        [_reached(good, *each) for each in courses] for courses in (our_courses, their_courses)
    )
    said = (
        f"minilm, {TIME_EPOCHS} epochs at a learning rate of {OUR_RATE:g}, seeds {TIME_SEEDS}, "
        f"{rows:,} held rows looked at after each; this project {_told(ours)}, with reading, "
        f"the trial of bf16 and evaluations; Trainer (fp32) {_told(theirs)}, its steps alone; one "
        "that never was so good counts with all its time where it is Trainer, and as infinite "
        "where it is this project"
    )
    shares = [
        a.seconds / b.seconds if a.is_good else math.inf for a, b in zip(ours, theirs, strict=True)
    ]
    return of_runs(f"training: time to {good} of Trainer's", shares, 0.25, "<=", "×", said)


@dataclass(frozen=True)
class Reached:
    """When a training was good enough, or how long it took in all where it never was."""

    seconds: float
    is_good: bool
    best: float


def _reached(good: float, accuracies: Sequence[float], seconds: float) -> Reached:
    reached = [number for number, each in enumerate(accuracies, 1) if each >= good]
    epochs = reached[0] if reached else len(accuracies)
    return Reached(epochs * seconds / len(accuracies), bool(reached), max(accuracies))


def _told(found: Sequence[Reached]) -> str:
    return ", ".join(
        f"{each.seconds:.0f} s (best {each.best:.4f})"
        if each.is_good
        else f"never in {each.seconds:.0f} s (best {each.best:.4f})"
        for each in found
    )


def _with_a_fifth_held(rows: Sequence[tuple[str, str]]) -> Path:
    """A project where a fifth of the rows validate, and a few are there to be audited."""
    folder = WORK / "training-time"
    folder.mkdir(parents=True, exist_ok=True)
    known = list(dict.fromkeys(rows))
    random.Random(0).shuffle(known)
    held = len(known) // 5
    part = {"validation": known[:held], "test": known[held:][:FEW], "train": known[held:][FEW:]}
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "part"])
        out.writerows([*row, name] for name, own in part.items() for row in own)
    (folder / "modelyard.toml").write_text(
        'name = "training-time"\n[data]\nrows = "rows.csv"\nsplit = { given = "part" }\n'
        '[inputs]\ntext = "text"\n[target]\ncolumn = "label"\n',
        encoding="utf-8",
    )
    return folder


@measures("training-accuracy")
def training_accuracy() -> list[Figure]:
    """Accuracy of whole trainings, this project after int8 and Trainer in fp32, seed by seed."""
    folder = from_sample("reviews")
    pairs = [_pair(folder, seed) for seed in ACCURACY_SEEDS]
    value, low, high = (
        statistics.mean(getattr(pair.apart, end) for pair in pairs)
        for end in ("value", "low", "high")
    )
    ours, theirs, our_s, their_s = (
        ", ".join(form.format(getattr(pair, name)) for pair in pairs)
        for name, form in (
            ("ours", "{:.4f}"),
            ("theirs", "{:.4f}"),
            ("our_s", "{:.0f}"),
            ("their_s", "{:.0f}"),
        )
    )
    said = (
        f"reviews, {ACCURACY_EPOCHS} epochs, seeds {ACCURACY_SEEDS}, {pairs[0].apart.rows:,} test "
        f"rows: this project {ours} ({our_s} s with the trial of bf16 and the evaluations), "
        f"Trainer {theirs} ({their_s} s without); paired 95 % interval, mean over the seeds"
    )
    name = "training: accuracy after int8 over Trainer's in fp32"
    return [Figure(name, value, low, high, 0, ">=", "", said)]


@dataclass(frozen=True)
class Pair:
    """One training by each, on the same rows with the same seed."""

    ours: float
    theirs: float
    our_s: float
    their_s: float
    apart: Difference


def _pair(folder: Path, seed: int) -> Pair:
    settings = (f"train.epochs={ACCURACY_EPOCHS}", "train.patience=0", f"train.seed={seed}")
    report = run(folder, *settings)
    trainer = _trainer(folder, epochs=ACCURACY_EPOCHS, seed=seed)
    told = pq.read_table(Path(report["report_folder"]) / "predictions.parquet").to_pydict()
    ours = [{"label": label} for label in told["label"]]
    theirs = [{"label": label} for label in trainer["labels"]]
    return Pair(
        ours=_accuracy(told["truth"], ours),
        theirs=_accuracy(told["truth"], theirs),
        our_s=_record(folder, *settings)["training_seconds"],
        their_s=trainer["seconds"],
        apart=difference(told["truth"], ours, theirs),
    )


@measures("predict-rate")
def predict_rate() -> list[Figure]:
    """Texts a second, this project and a transformers pipeline on the same weights, in turn."""
    release, texts = _released_reviews()
    ratios, ours, theirs = [], [], []
    for _ in range(RUNS):
        ours.append(predicted("modelyard", release, texts).rate)
        theirs.append(predicted("pipeline", release, texts).rate)
        ratios.append(ours[-1] / theirs[-1])
    said = (
        f"{len(texts):,} reviews, tokenisation included, in turn; this project (int8) "
        f"{statistics.median(ours):.0f}, pipeline(batch_size=32) (fp32) "
        f"{statistics.median(theirs):.0f} texts/s"
    )
    return [
        of_runs("predict texts/s over pipeline's", ratios, 4, ">=", "×", said),
        of_runs("engine: texts/s over pipeline's, int8", ratios, 6, ">=", "×", said),
    ]


@measures("ceiling")
def share_of_ceiling() -> list[Figure]:
    """Texts a second, as a share of what the machine's int8 product alone would take, in turn."""
    release, texts = _released_reviews()
    runtime = load(release)
    [column] = runtime.spec.inputs
    lengths = runtime.encode([{column.column: text} for text in texts]).lengths
    each = ceiling.operations(release, lengths.tolist()) / len(texts)
    shares, ours, rates = [], [], []
    for _ in range(RUNS):
        rates.append(ceiling.int8_operations_per_s())
        ours.append(predicted("modelyard", release, texts).rate)
        shares.append(ours[-1] * each / rates[-1])
    said = (
        f"{len(texts):,} reviews, tokenisation included, in turn; int8 product "
        f"{statistics.median(rates) / GIGA:.0f} billion operations/s, {each / GIGA:.2f} billion "
        f"a text, {statistics.median(ours):.0f} texts/s"
    )
    return [of_runs("engine: share of the int8 ceiling", shares, 0.55, ">=", "", said)]


def _released_reviews() -> tuple[Path, list[str]]:
    """A release of reviews, and the texts of its test rows."""
    release = Path(run(from_sample("reviews"), "train.seed=1")["release"])
    rows = rows_of(parts(from_sample("reviews")) / "test.parquet")
    return release, [text for text, _ in rows]


@dataclass(frozen=True)
class Predicted:
    """Texts a second, and the labels."""

    rate: float
    labels: list[str]


def predicted(which: str, release: Path, texts: list[str]) -> Predicted:
    """What one of the two does, in a process of its own."""
    file = WORK / "texts.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    return Predicted(**_child("bench.predict_run", which, str(release), str(file)))


def _accuracy(truth: list[str], answers: list[dict[str, str]]) -> float:
    right = [a == each["label"] for a, each in zip(truth, answers, strict=True)]
    return statistics.mean(right)


def _record(folder: Path, *settings: str) -> dict[str, Any]:
    """What a project's Model recorded of its training."""
    words = [word for setting in settings for word in ("--set", setting)]
    shown = json.loads(modelyard("run", str(folder), "--json", *words).splitlines()[-1])
    train = next(stage for stage in shown["stages"] if stage["stage"] == "train")
    made = (folder / ".modelyard" / "made" / "train").glob("*.json")
    manifests = [json.loads(file.read_text(encoding="utf-8")) for file in made]
    found: dict[str, Any] = next(m["record"] for m in manifests if m["digest"] == train["digest"])
    told = json.loads((Path(train["folder"]) / "training.json").read_text(encoding="utf-8"))
    precision = told["decisions"]["precision"]["precision"]
    return {**found, "precision": precision, "epochs": told["epochs"]}


def _trainer(
    folder: Path,
    epochs: int,
    seed: int,
    way: str = "fp32",
    rate: float = TRAINER_RATE,
    part: str = "test",
) -> dict[str, Any]:
    backbone = str(backbones.resolve("minilm").folder)
    words = (str(parts(folder)), backbone, str(epochs), str(seed), way, str(rate), part)
    return _child("bench.trainer_run", *words)


def _child(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
