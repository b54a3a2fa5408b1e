"""Memory: what a million rows take at their peak, in training and in predicting."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.tiny import BAD, GOOD, OTHER, make_backbone

from bench.figures import ROOT, WORK, Figure, measures

ROWS = 1_000_000
CHUNK_ROWS = 50_000
CHECKED_ROWS = 2_000
PROJECT = """name = "million"
[data]
rows = "rows.parquet"
[inputs]
text = "text"
[target]
column = "label"
[backbone]
text = "tiny"
[train]
epochs = 1
batch_rows = 64
"""


@measures("million")
def million() -> list[Figure]:
    """One pass over a million texts, then answers for them, each in a process of its own."""
    folder = WORK / "million"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(folder)
    return [
        _figure("training", _peak("train", folder)),
        _figure("predict", _peak("predict", folder)),
    ]


def _write(folder: Path) -> None:
    """A project, a tiny backbone, and the three parts of its Dataset."""
    (folder / "modelyard.toml").write_text(PROJECT, encoding="utf-8")
    make_backbone(folder / "tiny")
    (folder / "dataset").mkdir()
    rng = random.Random(0)
    for part, rows in (("train", ROWS), ("validation", CHECKED_ROWS), ("test", CHECKED_ROWS)):
        schema = pa.schema([("_row", pa.int64()), ("text", pa.string()), ("label", pa.string())])
        with pq.ParquetWriter(folder / "dataset" / f"{part}.parquet", schema) as file:
            for table in tables(rng, rows):
                file.write_table(table.cast(schema))


def tables(rng: random.Random, rows: int) -> Iterator[pa.Table]:
    """Texts of 6 to 30 words."""
    for start in range(0, rows, CHUNK_ROWS):
        numbers = range(start, min(start + CHUNK_ROWS, rows))
        labels = [("good", "bad")[number % 2] for number in numbers]
        texts = [
            " ".join(
                rng.choices(OTHER, k=rng.randint(4, 28)) + rng.choices((GOOD, BAD)[n % 2], k=2)
            )
            for n in numbers
        ]
        yield pa.table({"_row": list(numbers), "text": texts, "label": labels})


def _peak(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.million_run", what, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _figure(what: str, found: dict[str, float]) -> Figure:
    peak = found["peak_bytes"] / 1e9
    told = (
        f"{ROWS:,} texts of 18 words on average, one pass, a backbone of 2 layers × 32, in one "
        f"process (`predict` by the runtime alone); its peak, {found['seconds']:.0f} s; preparing "
        "the rows is not part of it"
    )
    return Figure(f"a million rows: {what}", peak, peak, peak, 3, "<", "GB", told)
