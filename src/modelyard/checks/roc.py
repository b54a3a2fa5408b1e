"""ROC: how well the scores of two labels put rows that are so before rows that are not."""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.core.intervals import Z_95, wilson
from modelyard.core.measure import Measure

MEASURES = ("auc", "average_precision", "ks", "gini")
MOST_RESAMPLES, FEWEST_RESAMPLES = 1000, 200
MOST_DRAWN = 20_000_000
"""Cells drawn in all resamples together, which bounds the time."""
POINTS = 200
Numbers = NDArray[np.float64]
Curve = tuple[Numbers, Numbers]


def roc(truth: Sequence[str], answers: Answers) -> Finding:
    """Area under the ROC curve, average precision, KS and Gini, and both curves.

    They are of the label that fewer of the rows have (the later of two as frequent); only average
    precision depends on which it is. Nothing is measured where there are more than two labels, or
    where all rows have one.

    >>> answers = [{"scores": {"bad": score, "good": 1 - score}} for score in (0.9, 0.6, 0.3, 0.1)]
    >>> [measure.value for measure in roc(["bad", "good", "bad", "good"], answers).measures]
    [0.75, 0.8333333333333333, 0.5, 0.5]
    """
    labels = sorted({*truth, *answers[0]["scores"]})
    if len(labels) != 2 or len(set(truth)) != 2:
        return Finding((), {})
    positive = min(reversed(labels), key=list(truth).count)
    is_so = np.array([true == positive for true in truth])
    score = np.array([float(answer["scores"].get(positive, 0.0)) for answer in answers])
    hits, misses = _by_score(is_so, score)
    measures = _measures(is_so, score, hits, misses)
    found = {each.name: _interval(each) for each in measures}
    return Finding(measures, {"positive": positive, **found, **_curves(hits, misses)})


def _interval(measure: Measure) -> dict[str, float]:
    return {"value": measure.value, "low": measure.low, "high": measure.high, "rows": measure.rows}


def _by_score(is_so: NDArray[np.bool_], score: Numbers) -> Curve:
    """How many rows with each score, highest first, are so (G,), and how many are not (G,)."""
    _, place = np.unique(-score, return_inverse=True)
    so, other = np.bincount(place, is_so), np.bincount(place, ~is_so)
    return so.astype(np.float64), other.astype(np.float64)


def _measures(
    is_so: NDArray[np.bool_], score: Numbers, hits: Numbers, misses: Numbers
) -> tuple[Measure, ...]:
    rows, positives = len(is_so), int(is_so.sum())
    area, low, high = area_of(is_so, score)
    precision, distance = _precision(hits, misses), _distance(hits, misses)
    drawn = np.quantile([_precision(*draw) for draw in _drawn(hits, misses)], [0.025, 0.975])
    ends = {"average_precision": drawn.tolist(), "ks": distance[1:]}
    if area == 1:  # nothing to resample without mistakes
        few = min(positives, rows - positives)
        ends = dict.fromkeys(ends, (wilson(few, few)[0], 1.0))
    return (
        Measure("auc", area, low, high, rows),
        Measure(
            "average_precision", precision, *_around(precision, ends["average_precision"]), rows
        ),
        Measure("ks", distance[0], *_around(distance[0], ends["ks"]), rows),
        Measure("gini", 2 * area - 1, 2 * low - 1, 2 * high - 1, rows),
    )


def _around(value: float, ends: Sequence[float]) -> tuple[float, float]:
    """An interval that holds its value."""
    return min(value, ends[0]), max(value, ends[1])


def area_of(is_so: NDArray[np.bool_], score: Numbers) -> tuple[float, float, float]:
    """The area under the ROC curve and its interval.

    DeLong, E. et al. (1988), Comparing the areas under two or more correlated ROC curves; the
    interval is one of log odds, so that it ends at 1. Without a mistake it is as wide as that of a
    share of the rarer label's rows.
    """
    first, second = (_places(is_so, score, side) for side in (True, False))
    area = float(first.mean())
    few = min(len(first), len(second))
    if not 0 < area < 1:
        low, high = wilson(round(area * few), few)
        return area, low, high
    variance = sum(float(each.var(ddof=1)) / len(each) for each in (first, second) if len(each) > 1)
    reach = Z_95 * sqrt(variance) / (area * (1 - area))
    centre = log(area / (1 - area))
    low, high = (1 / (1 + exp(-min(700.0, centre + side * reach))) for side in (-1, 1))
    return area, low, high


def _places(is_so: NDArray[np.bool_], score: Numbers, side: bool) -> Numbers:
    """For each row of one side, the share of the other side's rows that it is right against."""
    sign = 1 if side else -1
    own, others = sign * score[is_so == side], np.sort(sign * score[is_so != side])
    below, up_to = (others.searchsorted(own, which) for which in ("left", "right"))
    found: Numbers = (below + up_to) / (2 * len(others))
    return found


def _precision(hits: Numbers, misses: Numbers) -> float:
    """Average precision: the mean, over the rows that are so, of the precision down to them."""
    found = hits.cumsum()
    precision = found / np.maximum(1, found + misses.cumsum())
    return float(hits @ precision / max(1.0, found[-1]))


def _distance(hits: Numbers, misses: Numbers) -> tuple[float, float, float]:
    """Kolmogorov and Smirnov's distance between the scores of both labels, and its interval.

    The interval is that of a difference of two shares, at the score where they are farthest apart.
    """
    first, second = (each.cumsum() / each.sum() for each in (hits, misses))
    best = int(np.abs(first - second).argmax())
    value = abs(float(first[best] - second[best]))
    shares = ((float(first[best]), hits.sum()), (float(second[best]), misses.sum()))
    reach = Z_95 * sqrt(sum(share * (1 - share) / count for share, count in shares))
    return value, max(0.0, value - reach), min(1.0, value + reach)


def _drawn(hits: Numbers, misses: Numbers) -> list[Curve]:
    """Bootstrap samples of the rows, by score: each row is drawn a Poisson number of times."""
    random = np.random.default_rng(0)
    count = min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // len(hits)))
    return [
        (random.poisson(hits).astype(float), random.poisson(misses).astype(float))
        for _ in range(count)
    ]


def _curves(hits: Numbers, misses: Numbers) -> dict[str, Any]:
    """Points of both curves, as many as can be told apart in a plot."""
    found, wrong = hits.cumsum(), misses.cumsum()
    recall, false = found / found[-1], wrong / wrong[-1]
    precision = found / (found + wrong)
    best = int(np.abs(recall - false).argmax())
    return {
        "positives": int(found[-1]),
        "rows": int(found[-1] + wrong[-1]),
        "roc": _points(np.append(0.0, false), np.append(0.0, recall)),
        "precision_recall": _points(recall, precision),
        "farthest": [float(false[best]), float(recall[best])],
    }


def _points(x: Numbers, y: Numbers) -> list[list[float]]:
    """The points (N, 2) next to equal steps along the curve."""
    length = np.append(0.0, np.hypot(np.diff(x), np.diff(y)).cumsum())
    steps = np.linspace(0.0, length[-1], POINTS)
    chosen = np.unique(np.append(length.searchsorted(steps).clip(0, len(x) - 1), [0, len(x) - 1]))
    points: list[list[float]] = np.column_stack([x, y])[chosen].round(4).tolist()
    return points


CHECK = Check("roc", needs=("label", "scores"), measures=MEASURES, run=roc)
