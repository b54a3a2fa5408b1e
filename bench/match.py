"""Match: insurance questions and their answers, among the candidates that the rows give."""

import gzip
import json
from pathlib import Path
from typing import Any

from bench.figures import WORK, Figure, measures
from bench.projects import run
from modelyard.core.packages import Package, fetch

PARTS = {"test": "test", "valid": "validation", "train": "train"}
"""Test first: of equal rows the first is kept."""
FILES = ("answers", *PARTS)
PACKAGE = Package(
    "insuranceqa-data",
    "1.2",
    "3e1eaa2a8cc3a785b059d52f473c0e7280ba5de045a300701cb731a8b8cb16b3",
    {f"insuranceqa_data/{name}.json.gz": f"{name}.json.gz" for name in FILES},
    sdist=True,
)
OVER_BM25 = 1.5


@measures("insurance-faq")
def insurance_faq() -> list[Figure]:
    """The 2,000 test questions, each among its right answers and the 200 given wrong ones."""
    report = run(_project(WORK / "insurance-faq"))
    recall = _recall(report["measures"])
    bm25, untrained = (_baseline(report, name) for name in ("BM25", "untrained backbone"))
    theirs, difference = _recall(bm25["measures"])["value"], untrained["difference"]
    said = (
        f"{recall['rows']:,} test questions among their own pools, after int8, seed 7; "
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


def _project(folder: Path, most: dict[str, int] | None = None) -> Path:
    """A project on the questions as they are parted; `most` bounds the rows of a part."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.jsonl").exists():
        _write(folder, most or {})
    (folder / "modelyard.toml").write_text(
        'name = "insurance-faq"\n[data]\nrows = "rows.jsonl"\nsplit = { given = "part" }\n'
        '[inputs]\nquestion = { kind = "text", window_tokens = 128, windows = 1 }\n'
        '[target]\ncolumn = "answer"\nkind = "match"\ncandidates = "answers.jsonl"\n'
        'pool = "pool"\n[train]\nbatch_rows = 64\nepochs = 2\nlearning_rate = 0.00005\n',
        encoding="utf-8",
    )
    return folder


def _write(folder: Path, most: dict[str, int]) -> None:
    """rows.jsonl, and answers.jsonl with what they name."""
    source = fetch(PACKAGE)
    rows, named = [], set()
    for name, part in PARTS.items():
        for each in list(_read(source, name).values())[: most.get(part)]:
            question = " ".join(each["en"].split())
            row = {"question": question, "answer": each["answers"], "part": part}
            if part == "test":
                row["pool"] = each["answers"] + each["negatives"]
            named.update(row.get("pool", each["answers"]))
            rows.append(row)
    answers = [
        {"id": name, "text": each["en"].strip()}
        for name, each in _read(source, "answers").items()
        if name in named
    ]
    for name, lines in (("answers", answers), ("rows", rows)):
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _read(source: Path, name: str) -> dict[str, Any]:
    with gzip.open(source / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _recall(measured: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in measured if each["name"] == "recall_at_1")


def _baseline(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["baselines"] if each["name"] == name)
