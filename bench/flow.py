"""The flow under hard use: the demo, a second run, and kill -9 at random moments."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import ROOT, WORK, Figure, counted, measures, of_runs
from bench.projects import from_rows, from_sample, modelyard, parts, rows_of
from modelyard.core import digest

KILLS = 20
SMALL_ROWS = 160
SETTINGS = ("--set", "train.epochs=2", "--set", "train.patience=0")
SAME = {"compress": ("model.safetensors", "graph.onnx"), "audit": ("predictions.parquet",)}


@measures("demo")
def demo() -> list[Figure]:
    """`scripts/demo.py` from nothing but what was downloaded."""
    folder = WORK / "demo"
    modelyard("new", str(folder / "warm"), "--sample", "reviews")
    shutil.rmtree(folder)
    command = [sys.executable, "scripts/demo.py", "--folder", str(folder)]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    minutes = (time.monotonic() - start) / 60
    said = "reviews, all stages, serve, two questions; environment and downloads there already"
    return [Figure("make demo", minutes, minutes, minutes, 5, "<", "minutes", said)]


@measures("second-run")
def second_run() -> list[Figure]:
    """`modelyard run` where everything stands."""
    folder = _small("second-run")
    modelyard("run", str(folder), "--json", *SETTINGS)
    runs, started = [], 0
    for _ in range(5):
        start = time.perf_counter()
        lines = modelyard("run", str(folder), "--json", *SETTINGS).splitlines()
        runs.append(time.perf_counter() - start)
        started += sum(json.loads(line)["event"] == "stage-started" for line in lines)
    return [
        of_runs("second modelyard run", runs, 3, "<", "s", "whole process"),
        Figure(
            "stages run by it", started, started, started, 0, "<=", "stages", "events of 5 runs"
        ),
    ]


@measures("kill")
def kill() -> list[Figure]:
    """Kill -9 at random moments, then run again: the same bytes as an unbroken run."""
    folder = _small("kill")
    shutil.rmtree(folder / ".modelyard", ignore_errors=True)
    start = time.monotonic()
    modelyard("run", str(folder), "--json", *SETTINGS)
    whole_s = time.monotonic() - start
    wanted = _digests(folder)
    moments = random.Random(int.from_bytes(os.urandom(4))).sample(range(1000), KILLS)
    failures, died = [], 0
    for moment in moments:
        shutil.rmtree(folder / ".modelyard")
        died += _killed(folder, whole_s * moment / 1000)
        modelyard("run", str(folder), "--json", *SETTINGS)
        if (found := _digests(folder)) != wanted:
            failures.append(f"after {whole_s * moment / 1000:.1f} s: {found}")
    said = (
        f"minilm, {SMALL_ROWS} reviews, 2 epochs, checkpoints every 0.2 s; killed at moments "
        f"drawn over the {whole_s:.0f} s of a whole run ({died} before its end), then run again; "
        "weights, graph and predictions"
    )
    return [counted("runs after kill -9 that differ", failures, KILLS, said)]


def _small(name: str) -> Path:
    rows = rows_of(parts(from_sample("reviews")) / "train.parquet")
    return from_rows(name, random.Random(0).sample(rows, SMALL_ROWS))


def _killed(folder: Path, after_s: float) -> bool:
    command = [sys.executable, "-m", "bench.often_kept", "run", str(folder), "--json", *SETTINGS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _digests(folder: Path) -> dict[str, str]:
    shown = json.loads(modelyard("show", str(folder), "--json", *SETTINGS))
    folders = {each["stage"]: Path(each["folder"]) for each in shown["stages"]}
    return {
        f"{stage}/{name}": digest.of_file(folders[stage] / name)
        for stage, names in SAME.items()
        for name in names
    }
