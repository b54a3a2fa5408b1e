"""Projects the benchmarks run, through the command line as a user would."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.figures import ROOT, WORK

DATA = Path(os.environ.get("MODELYARD_DATA", ROOT.parent / "shared" / "data"))


class DataMissing(SystemExit):
    """Rows a benchmark needs are not on this machine."""


def modelyard(*words: str, check: bool = True) -> str:
    """Run the command and give its standard output."""
    command = [sys.executable, "-m", "modelyard", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    return done.stdout


def from_sample(sample: str) -> Path:
    """A project folder made from a sample."""
    folder = WORK / sample
    if not (folder / "modelyard.toml").exists():
        modelyard("new", str(folder), "--sample", sample)
    return folder


def from_rows(name: str, rows: Sequence[tuple[str, str]]) -> Path:
    """A project folder made from (text, label) rows."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "modelyard.toml").write_text(
        f'name = "{name}"\n[data]\nrows = "rows.csv"\n[inputs]\ntext = "text"\n'
        f'[target]\ncolumn = "label"\n',
        encoding="utf-8",
    )
    return folder


def phrasebank() -> list[tuple[str, str]]:
    """Financial PhraseBank, sentences all annotators agreed on."""
    return _sentences("AllAgree", "utf-8")


def phrasebank_unlabelled() -> list[str]:
    """Its other sentences, which fewer annotators agreed on; what they said of them is left out."""
    agreed = {text for text, _ in phrasebank()}
    return [text for text, _ in _sentences("50Agree", "latin-1") if text not in agreed]


def _sentences(agreement: str, encoding: str) -> list[tuple[str, str]]:
    file = DATA / "financial_phrasebank" / f"Sentences_{agreement}.txt"
    if not file.exists():
        raise DataMissing(f"{file} is missing; set MODELYARD_DATA to the folder of benchmark rows")
    lines = file.read_text(encoding=encoding).splitlines()
    split = (line.rpartition("@") for line in lines if "@" in line)
    return [(text.strip(), label.strip()) for text, _, label in split]


def banking77() -> Path:
    """A project on Banking77's questions to a bank, of 77 kinds, each row with its given part.

    Of the rows to train on, each fiftieth steers the training.
    """
    folder = WORK / "banking77"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["text", "category", "part"])
        for part in ("test", "train"):  # of equal rows the first is kept
            source = DATA / "banking77" / f"{part}.csv"
            if not source.exists():
                raise DataMissing(f"{source} is missing; set MODELYARD_DATA to the folder of rows")
            with source.open(newline="", encoding="utf-8") as rows:
                out.writerows(
                    [*row, "validation" if part == "train" and number % 50 == 0 else part]
                    for number, row in enumerate(list(csv.reader(rows))[1:])
                )
    (folder / "modelyard.toml").write_text(
        'name = "banking77"\n[data]\nrows = "rows.csv"\n'
        'split = { given = "part" }\n'
        '[inputs]\ntext = "text"\n[target]\ncolumn = "category"\n',
        encoding="utf-8",
    )
    return folder


def run(folder: Path, *settings: str) -> dict[str, Any]:
    """Run a project; its report, with `release` and `report_folder` beside."""
    words = [word for setting in settings for word in ("--set", setting)]
    last = modelyard("run", str(folder), "--json", *words).splitlines()[-1]
    found = json.loads(last)
    report = Path(found["report"])
    told: dict[str, Any] = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    return {**told, "release": found["release"], "report_folder": str(report.parent)}


def parts(folder: Path, *settings: str) -> Path:
    """The folder of a project's Dataset, which is made where it does not stand."""
    words = [word for setting in settings for word in ("--set", setting)]
    shown = json.loads(modelyard("show", str(folder), "--json", *words))
    prepare = next(stage for stage in shown["stages"] if stage["stage"] == "prepare")
    if not prepare["stands"]:
        run(folder, *settings, "train.epochs=1")
        return parts(folder, *settings)
    return Path(prepare["folder"])


def rows_of(part: Path, label: str = "label") -> list[tuple[str, str]]:
    """The (text, label) rows of a part of a Dataset."""
    table = pq.read_table(part).to_pydict()
    return list(zip(table["text"], table[label], strict=True))
