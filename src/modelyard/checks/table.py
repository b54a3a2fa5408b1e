"""The table the field prints: precision, recall, F1 and support of each class, and averages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.core.intervals import wilson

RESAMPLES = 1000
FIGURES = ("precision", "recall", "f1")
Counts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Of each class: rows found rightly, rows in truth, rows found; each (R, C)."""


def table(truth: Sequence[str], answers: Answers) -> Finding:
    """Precision, recall and F1 of each class, and their micro, macro and weighted averages.

    Where nothing can be divided by, the figure is 0, as scikit-learn has it. Precision and
    recall have a Wilson interval, and so has the micro average, which is the accuracy; F1 has
    that of the Jaccard index J, as F1 = 2J / (1 + J); the other averages have a bootstrap
    interval; without a mistake there is nothing to resample, and they have that of the accuracy.
    """
    found = [str(answer["label"]) for answer in answers]
    labels = sorted({*truth, *found})
    cells, counts = _cells(truth, found, labels)
    observed = _counts(cells, counts[None], len(labels))
    drawn = np.random.default_rng(0).multinomial(len(truth), counts / len(truth), size=RESAMPLES)
    averages = averages_of(observed)
    resampled = averages_of(_counts(cells, drawn, len(labels)))
    micro = _micro_row(int(observed[0].sum()), len(truth))
    return Finding(
        (),
        {
            "rows": len(truth),
            "classes": [
                class_row(label, *(int(count[0, number]) for count in observed))
                for number, label in enumerate(labels)
            ],
            "averages": [
                micro,
                *(
                    _average_row(name, averages[name][:, 0], resampled[name], micro)
                    for name in averages
                ),
            ],
        },
    )


def _cells(
    truth: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs (K, 2) of true and found class that occur, and how often (K,)."""
    number = {label: position for position, label in enumerate(labels)}
    pairs = np.array([(number[t], number[f]) for t, f in zip(truth, found, strict=True)])
    return np.unique(pairs, axis=0, return_counts=True)


def _counts(cells: NDArray[np.int64], drawn: NDArray[np.int64], classes: int) -> Counts:
    """Counts of each class from the counts (R, K) of cells (K, 2)."""
    true, found = cells.T
    chosen = (true == found, true), (slice(None), true), (slice(None), found)
    hits, support, called = (
        np.array([np.bincount(of[which], draw[which], classes) for draw in drawn])
        for which, of in chosen
    )
    return hits, support, called


def averages_of(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 (3, R) by the name of the average."""
    hits, support, found = counts
    figures = np.stack(
        [share(hits, found), share(hits, support), share(2 * hits, support + found)]
    )  # (3, R, C)
    occurs = (support + found) > 0
    return {
        "macro": (figures * occurs).sum(axis=2) / occurs.sum(axis=1),
        "weighted": (figures * support).sum(axis=2) / support.sum(axis=1),
    }


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """A part of a whole, 0 where the whole is."""
    quotient: NDArray[np.float64] = part / np.maximum(whole, 1)
    return quotient


def class_row(label: str, hits: int, support: int, found: int) -> dict[str, Any]:
    """A class's line of the table, from rows found rightly, rows in truth, rows found."""
    return {
        "label": label,
        "precision": _proportion(hits, found),
        "recall": _proportion(hits, support),
        "f1": _f1(hits, support, found),
        "support": support,
    }


def _proportion(part: int, whole: int) -> dict[str, float]:
    low, high = wilson(part, whole)
    return {"value": part / max(whole, 1), "low": low, "high": high, "rows": whole}


def _f1(hits: int, support: int, found: int) -> dict[str, float]:
    either = support + found - hits
    jaccard = _proportion(hits, either)
    ends = {name: 2 * jaccard[name] / (1 + jaccard[name]) for name in ("value", "low", "high")}
    return {**ends, "rows": either}


def _micro_row(hits: int, rows: int) -> dict[str, Any]:
    return {"name": "micro", **dict.fromkeys(FIGURES, _proportion(hits, rows)), "support": rows}


def _average_row(
    name: str, values: NDArray[np.float64], resampled: NDArray[np.float64], micro: dict[str, Any]
) -> dict[str, Any]:
    if micro["f1"]["value"] == 1:  # nothing to resample without mistakes
        return {**micro, "name": name}
    rows = micro["support"]
    return {"name": name, **resampled_figures(values, resampled, rows), "support": rows}


def resampled_figures(
    values: NDArray[np.float64], resampled: NDArray[np.float64], rows: int
) -> dict[str, Any]:
    """Precision, recall and F1 from values (3,) and bootstrap samples (3, R), with intervals."""
    lows, highs = np.quantile(resampled, [0.025, 0.975], axis=1)
    return {
        figure: {"value": float(value), "low": float(low), "high": float(high), "rows": rows}
        for figure, value, low, high in zip(FIGURES, values, lows, highs, strict=True)
    }


CHECK = Check("table", needs=("label",), measures=(), run=table)
