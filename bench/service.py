"""The service: how soon it answers, and what many minutes of too many requests do to it."""

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.figures import Figure, counted, measures, of_runs
from bench.peers.catalogue import OURS, SERVED
from bench.peers.running import Running, running
from bench.projects import from_sample, parts, rows_of, run
from modelyard.service.load import WARM_UP_SHARE, Load, ask, offer

STARTS = 5
CLIENTS = 32
CAPACITY_SECONDS = 10.0
TIMES_CAPACITY = 1.5
MINUTES = float(os.environ.get("OVERLOAD_MINUTES", "10"))
SETTLED_SHARE = 0.2
"""Of the time under load, what passes before memory is first looked at: 2 minutes of 10."""
LOOK_SHARE = 0.1
"""Of that time, how much each of the two looks takes."""
SAMPLE_SECONDS = 1.0
MEGA = 1_000_000


@measures("start")
def start() -> list[Figure]:
    """`modelyard serve`, from the start of the process to its first answer."""
    release, name, texts = _reviews()
    runs = []
    for _ in range(STARTS + 1):
        with running(SERVED[OURS], release, name, texts[0]) as up:
            runs.append(up.first_answer_s)
    said = "reviews, signature verified, one row over HTTP, asked every 20 ms, after one"
    return [of_runs("serve: start to first answer", runs[1:], 2, "<", "s", said)]


@measures("overload")
def overload() -> list[Figure]:
    """1.5 times what the service can do, for ten minutes; OVERLOAD_MINUTES says how many else."""
    release, name, texts = _reviews()
    with running(SERVED[OURS], release, name, texts[0]) as up:
        request = up.request(texts)
        capacity = ask(request, CLIENTS, CAPACITY_SECONDS).rows_per_s
        with _memory_of(up) as samples:
            found = offer(request, TIMES_CAPACITY * capacity, 60 * MINUTES / (1 + WARM_UP_SHARE))
        died = [] if psutil.pid_exists(up.process) and _answers(up, texts[0]) else ["no answer"]
    said = (
        f"reviews, {MINUTES:g} minutes at {TIMES_CAPACITY} × the {capacity:.0f} rows/s of "
        f"{CLIENTS} clients, open loop, one row a request; {found.rows_per_s:.0f} rows/s answered, "
        f"{found.refused:,} requests refused, at most {found.clients:,} waiting"
    )
    return [
        counted("overload: the service died", died, 1, said),
        counted("overload: requests without an answer, or refused without a time", _untold(found),
                len(found.milliseconds) + found.refused + found.lost, said),
        _flat(samples, said),
    ]  # fmt: skip


def _reviews() -> tuple[Path, str, list[str]]:
    """A release, its name, and test rows."""
    folder = from_sample("reviews")
    report = run(folder, "train.seed=1")
    texts = [text for text, _ in rows_of(parts(folder) / "test.parquet")]
    return Path(report["release"]), str(report["name"]), texts


def _answers(up: Running, text: str) -> bool:
    try:
        return bool(up.label(text))
    except OSError:
        return False


def _untold(found: Load) -> list[str]:
    silent = found.refused - found.told_when
    return ["lost"] * found.lost + ["refused without 503 and Retry-After"] * silent


def _flat(samples: list[tuple[float, int]], said: str) -> Figure:
    """Memory at the end over memory once settled."""
    ends = samples[-1][0]
    before, after = (
        statistics.median(size for at, size in samples if low <= at / ends <= low + LOOK_SHARE)
        for low in (SETTLED_SHARE, 1 - LOOK_SHARE)
    )
    ratio = after / before
    told = f"{before / MEGA:.0f} MB after {SETTLED_SHARE:.0%} of it, {after / MEGA:.0f} at its end"
    name = "overload: memory at the end over memory once settled"
    return Figure(name, ratio, ratio, ratio, 1.05, "<=", "×", f"{said}; {told}")


@contextmanager
def _memory_of(up: Running) -> Iterator[list[tuple[float, int]]]:
    """Seconds and bytes that the service's processes hold, sampled until the end."""
    samples: list[tuple[float, int]] = []
    done = threading.Event()
    began = time.monotonic()

    def sample() -> None:
        process = psutil.Process(up.process)
        while not done.wait(SAMPLE_SECONDS):
            all_of_it = [process, *process.children(recursive=True)]
            held = sum(each.memory_info().rss for each in all_of_it)
            samples.append((time.monotonic() - began, held))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
