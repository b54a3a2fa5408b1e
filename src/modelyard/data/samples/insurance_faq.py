"""Questions on insurance and the answers that professionals gave, in English."""

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

from modelyard.data.proposal import Proposal
from modelyard.data.samples import Sample, from_package, write_rows

LICENCE = "package GPL-3.0; the data is for research, and its source must be named"
CANDIDATES = "candidates.jsonl"
PARTS = {"test": "test", "valid": "validation", "train": "train"}
"""The parts as they are published. Of equal questions the first is kept: one of the test's."""
SOURCE = from_package(
    "insuranceqa-data",
    "1.2",
    "3e1eaa2a8cc3a785b059d52f473c0e7280ba5de045a300701cb731a8b8cb16b3",
    {
        f"insuranceqa_data/{name}.json.gz": f"{name}.json.gz"
        for name in ("answers", "test", "train", "valid")
    },
    sdist=True,
)
SETTINGS: dict[str, dict[str, Any]] = {
    "data.split": {"given": "split"},
    "target": {"candidates": CANDIDATES, "pool": "pool"},
    "train": {"batch_rows": 64},  # a step's other candidates are what a row learns from
}


def write(language: str, source: Path, target: Path) -> None:
    """The rows, and beside them the answers to all questions: each has an id and a text."""
    answers = _read(source / "answers.json.gz")
    write_rows(
        target.with_name(CANDIDATES),
        [{"id": own, "text": _plain(answer[language])} for own, answer in answers.items()],
    )
    write_rows(
        target,
        [
            _row(question, language, part)
            for name, part in PARTS.items()
            for question in _read(source / f"{name}.json.gz").values()
        ],
    )


def _row(question: dict[str, Any], language: str, part: str) -> dict[str, Any]:
    """A question; those to be audited have the pool they are published with, of about 200."""
    right, wrong = question["answers"], question["negatives"]
    return {
        "question": _plain(question[language]),
        "answers": right,
        "domain": question["domain"],
        "split": part,
        "pool": [*right, *wrong] if part == "test" else None,
    }


def _plain(text: str) -> str:
    """Without the second space that stands between English words."""
    return " ".join(text.split())


def _read(file: Path) -> dict[str, Any]:
    with gzip.open(file, "rt", encoding="utf-8") as content:
        found: dict[str, Any] = json.load(content)
    return found


SAMPLE = Sample(
    name="insurance-faq",
    description="16,889 questions on insurance in English, and 27,413 answers to find theirs among",
    rows=16_889,
    licence=LICENCE,
    language="en",
    proposal=Proposal(
        inputs={"question": "text"},
        target="answers",
        kind="match",
        backbone={"text": "minilm"},
        others={"domain": "category"},
        settings=SETTINGS,
    ),
    file="rows.jsonl",
    source=SOURCE,
    write=partial(write, "en"),
)
