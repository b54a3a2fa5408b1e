"""Batch work: a million rows through the command, its memory and its rate beside the engine's."""

import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from tests.tiny import make_backbone

from bench.figures import ROOT, WORK, Figure, measures, of_runs
from bench.memory import ROWS, tables
from bench.projects import modelyard

RUNS = 3
LEARNED_ROWS = 2_000
MINILM_ROWS = 30_000
SAMPLE_SECONDS = 0.1
PROJECT = """name = "batch"
[data]
rows = "rows.parquet"
[inputs]
text = "text"
[target]
column = "label"
[backbone]
text = "{backbone}"
[train]
epochs = 1
"""


@dataclass(frozen=True)
class Run:
    """One run of the command: rows a second, and the most memory of all its processes together."""

    rows_per_s: float
    peak_bytes: int


@measures("million-predict")
def million_predict() -> list[Figure]:
    """A million texts through `modelyard predict`, and through the engine alone, in turn.

    The backbone is tiny, so that everything beside the network weighs the most.
    """
    make_backbone(WORK / "batch-tiny")
    return compared("a million rows", str(WORK / "batch-tiny"), ROWS, RUNS)


@measures("predict-minilm")
def predict_minilm() -> list[Figure]:
    """The same with MiniLM, where the network weighs what it does for a user; fewer rows."""
    return compared("30,000 rows with MiniLM", "minilm", MINILM_ROWS, RUNS)


def compared(name: str, backbone: str, rows: int, runs: int) -> list[Figure]:
    """The command and the engine in turn, on the same texts."""
    folder = _project(backbone, rows)
    engine, found = [], []
    for _ in range(runs):
        engine.append(rows / _engine_seconds(folder))
        found.append(_command(folder, rows))
    ratios = [run.rows_per_s / alone for run, alone in zip(found, engine, strict=True)]
    rates = [run.rows_per_s for run in found]
    said = (
        f"{rows:,} texts of 18 words on average, Parquet in and out, the whole command from start "
        f"to end, {max(rates):,.0f} rows/s; the engine in process {max(engine):,.0f} rows/s, in "
        "turn"
    )
    peaks = [run.peak_bytes / 1e9 for run in found]
    told = f"{rows:,} texts, resident memory of all processes of the command, summed each 0.1 s"
    return [
        of_runs(f"{name} through predict: rate over the engine's", ratios, 0.9, ">=", "×", said),
        of_runs(f"{name} through predict: memory", peaks, 1.5, "<", "GB", told),
    ]


def _project(backbone: str, rows: int) -> Path:
    """A project that has been run, with the texts to answer beside it."""
    folder = WORK / "batch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "modelyard.toml").write_text(PROJECT.format(backbone=backbone), encoding="utf-8")
    rng = random.Random(0)
    for name, count in (("rows", LEARNED_ROWS), ("texts", rows)):
        chunks = tables(rng, count)
        first = next(chunks)
        with pq.ParquetWriter(folder / f"{name}.parquet", first.schema) as file:
            file.write_table(first)
            for table in chunks:
                file.write_table(table)
    modelyard("run", str(folder))
    return folder


def _engine_seconds(folder: Path) -> float:
    command = [sys.executable, "-m", "bench.million_run", "engine", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _command(folder: Path, rows: int) -> Run:
    words = ["predict", str(folder), str(folder / "texts.parquet")]
    began, peak = time.perf_counter(), 0
    with psutil.Popen([sys.executable, "-m", "modelyard", *words], cwd=ROOT) as running:
        while running.poll() is None:
            peak = max(peak, _memory_bytes(running))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - began
    answered = pq.read_metadata(folder / "texts.predictions.parquet").num_rows
    if running.returncode or answered != rows:
        raise SystemExit(f"predict ended with {running.returncode} and {answered:,} answers")
    return Run(rows / seconds, peak)


def _memory_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and all below it; what they share is counted for each."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
