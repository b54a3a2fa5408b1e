"""Residuals: how far answers that are numbers lie from the truth, where, and in which rows."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.core.intervals import INTERVAL_SHARE, Z_95, wilson

PARTS = 10
FEWEST_ROWS = 10
HISTOGRAM_BINS = 30
CELLS = 60
MOST = 10
CENTRE = (0.005, 0.995)
WIDE = 3.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Floats = NDArray[np.float64]


def residuals(truth: Sequence[float], answers: Answers) -> Finding:
    """Residuals (answer less truth) by size of the answer, their histogram, the largest ones.

    `row` is the position among the rows given.
    """
    value, low, high = (
        np.array([answer[name] for answer in answers], dtype=np.float64)
        for name in ("value", "low", "high")
    )
    truths = np.array(truth, dtype=np.float64)
    inside = (low <= truths) & (truths <= high)
    residual = value - truths
    return Finding(
        (),
        {
            "rows": len(truths),
            "interval": {
                "wanted": INTERVAL_SHARE,
                **_share(inside),
                "median_width": float(np.median(high - low)),
            },
            "bias": _bias(residual),
            "parts": [_part(rows, value, residual, inside) for rows in _by_size(value)],
            "histogram": _histogram(residual),
            "grid": _grid(value, truths),
            "listed": [
                {"row": int(row), "truth": float(truths[row]), "value": float(value[row])}
                | {"low": float(low[row]), "high": float(high[row])}
                for row in np.argsort(-np.abs(residual), kind="stable")[:MOST]
            ],
        },
    )


def _share(inside: NDArray[np.bool_]) -> dict[str, Any]:
    """The share of truths inside their interval, with its own."""
    hits, rows = int(inside.sum()), len(inside)
    low, high = wilson(hits, rows)
    return {"value": hits / rows, "low": low, "high": high, "rows": rows}


def _bias(residual: Floats) -> dict[str, float]:
    """The mean residual with its normal interval: above 0 where answers are too high."""
    mean, rows = float(residual.mean()), len(residual)
    reach = Z_95 * float(residual.std(ddof=1)) / sqrt(rows) if rows > 1 else abs(mean)
    return {"value": mean, "low": mean - reach, "high": mean + reach, "rows": rows}


def _by_size(value: Floats) -> list[NDArray[np.int64]]:
    """Rows in tenths by the size of their answer, the lowest first; fewer parts of few rows."""
    parts = max(1, min(PARTS, len(value) // FEWEST_ROWS))
    return np.array_split(np.argsort(value, kind="stable"), parts)


def _part(
    rows: NDArray[np.int64], value: Floats, residual: Floats, inside: NDArray[np.bool_]
) -> dict[str, Any]:
    named = ("p5", "p25", "p50", "p75", "p95")
    return {
        "rows": len(rows),
        "from": float(value[rows[0]]),
        "to": float(value[rows[-1]]),
        "middle": float(np.median(value[rows])),
        "mae": float(np.abs(residual[rows]).mean()),
        "inside": _share(inside[rows]),
        **dict(zip(named, np.quantile(residual[rows], QUANTILES).tolist(), strict=True)),
    }


def _histogram(residual: Floats) -> dict[str, Any]:
    """Rows by residual in 30 bins of equal width around 0; those beyond are in the outer ones."""
    reach = float(np.quantile(np.abs(residual), CENTRE[1])) or 1.0
    edges = np.linspace(-reach, reach, HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(np.clip(residual, -reach, reach), edges)
    beyond = int((np.abs(residual) > reach).sum())
    return {"from": -reach, "to": reach, "counts": counts.tolist(), "beyond": beyond}


def _grid(value: Floats, truths: Floats) -> dict[str, Any]:
    """Rows by answer and truth in cells of equal size: [cell of value, cell of truth, rows].

    One window serves both. It holds every row, unless a few rows would make it over three times
    as wide as the others need; those few are only counted.
    """
    both = np.concatenate([value, truths])
    (least, most), ends = np.quantile(both, CENTRE), (float(both.min()), float(both.max()))
    narrow = ends[1] - ends[0] > WIDE * (most - least) > 0
    low, high = (float(least), float(most)) if narrow else ends
    high = high if high > low else low + 1.0
    shown = (both.reshape(2, -1) >= low).all(0) & (both.reshape(2, -1) <= high).all(0)
    cells = [
        np.minimum((CELLS * ((each[shown] - low) / (high - low))).astype(np.int64), CELLS - 1)
        for each in (value, truths)
    ]
    found, counts = np.unique(np.stack(cells, axis=1), axis=0, return_counts=True)
    return {
        "from": low,
        "to": high,
        "cells": CELLS,
        "counts": np.column_stack([found, counts]).tolist(),
        "beyond": int((~shown).sum()),
    }


CHECK = Check("residuals", needs=("value", "low", "high"), measures=(), run=residuals)
