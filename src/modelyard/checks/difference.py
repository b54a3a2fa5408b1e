"""The paired difference: whether one model is better than another on the same rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers
from modelyard.core.intervals import Z_95

RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """How much better a measure is, with its 95 % interval, as a share; above 0 it is better.

    Of accuracy, and F1 of labels or spans, it is what one has more than the other, in points; of
    a mean absolute error it is the part of the other's that is saved, in percent.
    """

    value: float
    low: float
    high: float
    rows: int
    only_first: int
    """Rows that only the first model has wholly right; of numbers, those it is nearer to."""
    only_second: int
    unit: str = "points"
    """What a hundredth of the share is called: points, or %."""

    @property
    def judgement(self) -> str:
        """`better`, `worse`, or `as good` where the interval holds 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "as good"


def difference(truth: Sequence[str], first: Answers, second: Answers) -> Difference:
    """The difference of two models that answered the same rows (B,).

    The interval adds half a row to each of the four cells: Agresti, A. and Min, Y. (2005),
    Simple improved confidence intervals for comparing matched proportions.

    >>> yes, no = {"label": "yes"}, {"label": "no"}
    >>> paired = difference(["yes"] * 100, [yes] * 90 + [no] * 10, [yes] * 70 + [no] * 30)
    >>> round(paired.value, 2), round(paired.low, 2), round(paired.high, 2), paired.judgement
    (0.2, 0.12, 0.28, 'better')
    """
    pairs = list(zip(_right(truth, first), _right(truth, second), strict=True))
    rows = len(pairs)
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    change, adjusted_rows = only_first - only_second, rows + 2
    centre = change / adjusted_rows
    spread = Z_95 / adjusted_rows * sqrt(only_first + only_second + 1 - change**2 / adjusted_rows)
    return Difference(
        value=change / max(1, rows),
        low=max(-1.0, centre - spread),
        high=min(1.0, centre + spread),
        rows=rows,
        only_first=only_first,
        only_second=only_second,
    )


def _right(truth: Sequence[str], answers: Answers) -> list[bool]:
    return [true == str(answer["label"]) for true, answer in zip(truth, answers, strict=True)]


def labels_difference(
    truth: Sequence[Sequence[str]], first: Answers, second: Answers
) -> Difference:
    """The difference in micro F1 of two models that gave the same rows (B,) labels.

    The interval is that of 1,000 bootstrap samples of the rows.

    >>> a, ab = {"labels": ["a"]}, {"labels": ["a", "b"]}
    >>> paired = labels_difference([["a"]] * 50, [a] * 50, [ab] * 50)
    >>> round(paired.value, 3), paired.judgement, paired.only_first
    (0.333, 'better', 50)
    """
    ours, theirs = (_counts(truth, answers) for answers in (first, second))
    return _of_counts(ours, theirs)


def spans_difference(
    truth: Sequence[Mapping[str, Any]], first: Answers, second: Answers
) -> Difference:
    """The difference in F1 of two models that found spans in the same rows (B,).

    The interval is that of 1,000 bootstrap samples of the rows.
    """
    true = [set(map(_key, own["spans"])) for own in truth]
    pairs = ([set(map(_key, own["spans"])) for own in answers] for answers in (first, second))
    ours, theirs = (
        np.array([(len(t & f), len(t) + len(f)) for t, f in zip(true, found, strict=True)])
        for found in pairs
    )
    return _of_counts(ours, theirs)


def _key(span: Mapping[str, Any]) -> tuple[int, int, str]:
    return span["start"], span["end"], span["label"]


def _of_counts(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> Difference:
    """The difference in F1 from two models' counts (B, 2): found rightly, and so or found."""
    rows = len(ours)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
    low, high = np.quantile(_f1(drawn @ ours) - _f1(drawn @ theirs), [0.025, 0.975])
    exact = [counts[:, 0] * 2 == counts[:, 1] for counts in (ours, theirs)]
    return Difference(
        value=float(_f1(ours.sum(0)) - _f1(theirs.sum(0))),
        low=float(low),
        high=float(high),
        rows=rows,
        only_first=int((exact[0] & ~exact[1]).sum()),
        only_second=int((exact[1] & ~exact[0]).sum()),
    )


def candidates_difference(
    truth: Sequence[Mapping[str, Any]], first: Answers, second: Answers
) -> Difference:
    """The difference in recall at 1 of two rankings of the same rows (B,), as `difference`.

    >>> a, b = ({"candidates": [{"id": name}]} for name in "ab")
    >>> candidates_difference([{"right": ["a"]}] * 50, [a] * 50, [b] * 50).judgement
    'better'
    """
    ours, theirs = (
        [
            {
                "label": str(
                    bool(ranked["candidates"]) and ranked["candidates"][0]["id"] in own["right"]
                )
            }
            for own, ranked in zip(truth, answers, strict=True)
        ]
        for answers in (first, second)
    )
    return difference(["True"] * len(truth), ours, theirs)


def _counts(truth: Sequence[Sequence[str]], answers: Answers) -> NDArray[np.int64]:
    """Of each row the labels found rightly, and those that are so or were found: (B, 2)."""
    pairs = [
        (set(true), set(answer["labels"])) for true, answer in zip(truth, answers, strict=True)
    ]
    return np.array([(len(true & found), len(true) + len(found)) for true, found in pairs])


def _f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Micro F1 (...) from sums (..., 2)."""
    f1: NDArray[np.float64] = 2 * counts[..., 0] / np.maximum(1, counts[..., 1])
    return f1


def number_difference(truth: Sequence[float], first: Answers, second: Answers) -> Difference:
    """The share of the second model's mean absolute error that the first saves, on rows (B,).

    The interval is that of a ratio of two means over the same rows, by the delta method; where
    the second makes no error there is nothing to save.

    >>> near, far = [{"value": 1.0}] * 50, [{"value": 4.0}] * 50
    >>> paired = number_difference([0.0, 2.0] * 25, near, far)
    >>> round(paired.value, 2), paired.judgement, paired.only_first
    (0.67, 'better', 50)
    """
    ours, theirs = (_errors(truth, answers) for answers in (first, second))
    rows, whole = len(truth), float(theirs.mean())
    ratio = float(ours.mean()) / whole if whole else float(ours.mean() > 0) + 1.0
    spread = (ours - ratio * theirs).std(ddof=1) / (whole or 1.0) if rows > 1 else ratio
    reach = Z_95 * float(spread) / sqrt(rows)
    return Difference(
        value=1 - ratio,
        low=1 - ratio - reach,
        high=min(1.0, 1 - ratio + reach),
        rows=rows,
        only_first=int((ours < theirs).sum()),
        only_second=int((theirs < ours).sum()),
        unit="%",
    )


def _errors(truth: Sequence[float], answers: Answers) -> NDArray[np.float64]:
    found = np.array([answer["value"] for answer in answers], dtype=np.float64)
    errors: NDArray[np.float64] = np.abs(found - np.array(truth, dtype=np.float64))
    return errors


OF: dict[str, Callable[[Any, Answers, Answers], Difference]] = {
    "label": difference,
    "labels": labels_difference,
    "spans": spans_difference,
    "value": number_difference,
    "candidates": candidates_difference,
}
"""By the key of an answer that holds what is compared."""


def fitting(keys: Collection[str]) -> Callable[[Any, Answers, Answers], Difference] | None:
    """What compares answers with these keys, or None."""
    return next((compare for key, compare in OF.items() if key in keys), None)
