"""Images: chest X-rays of 28 × 28 pixels, on the test set as it was published."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import modelyard
from bench.figures import WORK, Figure, measures
from bench.projects import DATA, DataMissing, run
from modelyard.core.intervals import wilson

PARTS = {"test": "test", "val": "validation", "train": "train"}
"""Test first: of equal rows the first is kept."""
LABELS = ("normal", "pneumonia")
RESAMPLES = 2000
LINEAR = "pixels with logistic regression"
PUBLISHED = "ResNet-18 at 224 pixels, as published with the data: AUC 0.956, accuracy 0.864"
Numbers = NDArray[np.float64]


@measures("pneumonia")
def pneumonia() -> list[Figure]:
    """PneumoniaMNIST: all 624 test images, through the release's own graph."""
    folder = _project()
    report = run(folder)
    rows, truth = _test(folder)
    answers = modelyard.load(Path(report["release"])).predict(rows)
    scores = np.array([answer["scores"]["pneumonia"] for answer in answers])
    right = int(sum(a["label"] == t for a, t in zip(answers, truth, strict=True)))
    is_ill = np.array([each == "pneumonia" for each in truth])
    linear = _baseline(report)
    said = f"{len(rows)} test images, after int8, seed 7; {LINEAR} {linear}; {PUBLISHED}"
    low, high = _interval(is_ill, scores)
    return [
        Figure("PneumoniaMNIST: AUC", auc(is_ill, scores), low, high, 0.965, ">=", "",
               f"{said}; bootstrap 95 % interval"),
        Figure("PneumoniaMNIST: accuracy", right / len(rows), *wilson(right, len(rows)), 0.89, ">=",
               "", f"{said}; Wilson 95 % interval"),
    ]  # fmt: skip


def _project() -> Path:
    """A project on the rows as they were published, each with its part."""
    source = DATA / "pneumoniamnist" / "pneumoniamnist_full.npz"
    if not source.exists():
        raise DataMissing(f"{source} is missing; set MODELYARD_DATA to the folder of such rows")
    folder = WORK / "pneumonia"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.parquet").exists():
        pq.write_table(pa.Table.from_pylist(_rows(source)), folder / "rows.parquet")
    (folder / "modelyard.toml").write_text(
        'name = "pneumonia"\n[data]\nrows = "rows.parquet"\nsplit = { given = "part" }\n'
        '[inputs]\nimage = { kind = "image", size = 128 }\n[target]\ncolumn = "label"\n'
        '[train]\nclass_weights = "balanced"\nepochs = 6\n',
        encoding="utf-8",
    )
    return folder


def _rows(source: Path) -> list[dict[str, Any]]:
    with np.load(source, allow_pickle=False) as found:
        return [
            {"image": _png(image), "label": LABELS[int(label)], "part": part}
            for name, part in PARTS.items()
            for image, label in zip(
                found[f"{name}_images"], found[f"{name}_labels"].ravel(), strict=True
            )
        ]


def _png(grey: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


def _test(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every test image, those too that prepare leaves out as equal to another."""
    table = pq.read_table(folder / "rows.parquet", filters=[("part", "==", "test")])
    rows = table.to_pylist()
    return [{"image": row["image"]} for row in rows], [row["label"] for row in rows]


def _baseline(report: dict[str, Any]) -> str:
    [linear] = [each for each in report["baselines"] if each["name"] == LINEAR]
    [accuracy] = [each for each in linear["measures"] if each["name"] == "accuracy"]
    return f"accuracy {accuracy['value']:.3f} of {accuracy['rows']}"


def auc(is_ill: NDArray[np.bool_], scores: Numbers) -> float:
    """The chance that an ill one scores higher than a healthy one; ties count half."""
    from scipy.stats import rankdata

    ill = int(is_ill.sum())
    ranks = rankdata(scores)[is_ill].sum()
    return float((ranks - ill * (ill + 1) / 2) / (ill * (len(scores) - ill)))


def _interval(is_ill: NDArray[np.bool_], scores: Numbers) -> tuple[float, float]:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = draw.integers(0, len(scores), len(scores))
        found.append(auc(is_ill[drawn], scores[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
