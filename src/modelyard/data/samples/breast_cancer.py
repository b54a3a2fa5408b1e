"""Measurements of cell nuclei from breast tissue, malignant or benign."""

import csv
from importlib.util import find_spec
from pathlib import Path

from modelyard.core.errors import ExtraMissing
from modelyard.core.events import Events
from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample, write_rows

MEASURED = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)
NAMES = [
    *(f"mean {name}" for name in MEASURED),
    *(f"{name} error" for name in MEASURED),
    *(f"worst {name}" for name in MEASURED),
]
LABELS = ("malignant", "benign")


def _source(events: Events) -> Path:
    """The file of the installed scikit-learn, which is found and not imported."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ExtraMissing(
            "The sample breast-cancer comes with scikit-learn; run pip install 'modelyard[build]'."
        )
    return Path(found.origin).parent / "datasets" / "data" / "breast_cancer.csv"


def _write(source: Path, target: Path) -> None:
    """The first line holds counts and not names: the values stand in the order of NAMES."""
    with source.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    write_rows(
        target,
        [
            {**dict(zip(NAMES, values, strict=True)), "diagnosis": LABELS[int(label)]}
            for *values, label in lines
        ],
    )


SAMPLE = Sample(
    name="breast-cancer",
    description="569 cases in 30 measurements of cell nuclei, malignant or benign",
    rows=569,
    licence="BSD-3-Clause, as scikit-learn's",
    proposal=Proposal(
        inputs=dict.fromkeys(NAMES, "number"),
        target="diagnosis",
        kind="class",
    ),
    source=_source,
    write=_write,
)
