"""The paired difference: whether one model is better than another on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from modelyard.checks import Answers
from modelyard.core.intervals import Z_95

NEEDS = ("label",)


@dataclass(frozen=True)
class Difference:
    """How much larger the share of rightly answered rows is, with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int
    only_first: int
    """Rows that only the first model has right."""
    only_second: int

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
