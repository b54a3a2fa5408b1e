"""Latency: how long one row takes, and how many rows a second go through in bulk."""

from collections.abc import Callable, Mapping, Sequence
from math import floor, sqrt
from time import perf_counter
from typing import Any

import numpy as np

from modelyard.checks import Finding
from modelyard.core.intervals import Z_95
from modelyard.core.measure import Measure

SHARES = (50, 95, 99)
MEASURES = (*(f"latency_p{share}_ms" for share in SHARES), "rows_per_s")
Row = Mapping[str, Any]


def latency(
    predict: Callable[[Sequence[Row]], Any],
    rows: Sequence[Row],
    budget_s: float = 4.0,
    most_calls: int = 1000,
    chunk_rows: int = 128,
) -> Finding:
    """Call `predict` with one row at a time, then in chunks, each for half of the budget.

    A quarter second of warm-up comes first. A quantile's interval is that of order statistics,
    free of any assumption on the distribution; that of rows/s is normal over the chunks.
    """
    chunk = [rows[number % len(rows)] for number in range(chunk_rows)]
    timed(predict, [[row] for row in chunk], budget_s / 16, chunk_rows)
    ones = [[row] for row in rows]
    singles = [1000 * s for s in timed(predict, ones, budget_s / 2, most_calls)]
    chunks = [chunk_rows / s for s in timed(predict, [chunk], budget_s / 2, 20)]
    measures = (*(quantile(singles, share) for share in SHARES), _rate(chunks, chunk_rows))
    details = {each.name: each.to_json() for each in measures}
    counts = {"calls": len(singles), "chunks": len(chunks), "chunk_rows": chunk_rows}
    return Finding(measures, {**details, **counts})


def timed(
    predict: Callable[[Sequence[Row]], Any],
    batches: Sequence[Sequence[Row]],
    budget_s: float,
    most_calls: int,
) -> list[float]:
    """Seconds of each call on the batches in turn, until the budget or the calls are used up."""
    seconds: list[float] = []
    started = perf_counter()
    while not seconds or (len(seconds) < most_calls and perf_counter() - started < budget_s):
        before = perf_counter()
        predict(batches[len(seconds) % len(batches)])
        seconds.append(perf_counter() - before)
    return seconds


def quantile(values_ms: Sequence[float], share: int) -> Measure:
    """The quantile at `share` percent, between two order statistics.

    Conover, W. (1999), Practical nonparametric statistics, section 3.2.

    >>> quantile([float(n) for n in range(1, 102)], 50)
    Measure(name='latency_p50_ms', value=51.0, low=41.0, high=61.0, rows=101, ...)
    """
    ordered = sorted(values_ms)
    calls, part = len(ordered), share / 100
    spread = Z_95 * sqrt(calls * part * (1 - part))
    low = max(0, floor(calls * part - spread))
    high = min(calls - 1, floor(calls * part + spread))
    value = float(np.quantile(ordered, part))
    name = f"latency_p{share}_ms"
    return Measure(name, value, min(value, ordered[low]), max(value, ordered[high]), calls, False)


def _rate(rates: Sequence[float], chunk_rows: int) -> Measure:
    mean = float(np.mean(rates))
    error = float(np.std(rates, ddof=1)) / sqrt(len(rates)) if len(rates) > 1 else mean
    low, high = max(0.0, mean - Z_95 * error), mean + Z_95 * error
    return Measure("rows_per_s", mean, low, high, chunk_rows * len(rates))
