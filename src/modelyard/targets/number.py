"""Number: an amount for each row, with an interval that is to hold nine truths in ten.

The network gives three quantiles of what the truth may be. The answer is the middle one, the
median, which is what the mean absolute error asks for; the other two are the interval.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil, isfinite, sqrt
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from modelyard.core.errors import NothingToLearn
from modelyard.core.intervals import INTERVAL_SHARE, Z_95, wilson
from modelyard.runtime.encoded import Encoded
from modelyard.targets import Baseline, Measure, State

LEVELS = (0.05, 0.5, 0.95)
ENDS = ("low", "value", "high")
FEWEST_ROWS = 10
FOLDS = 5
STRATA = 10
LARGEST = 1e30
"""A larger number leaves no room for squares and sums; no unit of measurement needs one."""
FARTHEST = 1e6
"""Scales from the median beyond which a truth is no farther: the network computes in fp32."""
ROUNDING = 1e-9
"""Scales by which an interval is wider, so that the truth that decides its width is inside."""
FLAT = 1e-30
"""The share of the squared errors below which the truths' variance is none."""
PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
IN_GROUPS = re.compile(r"[+-]?\d{1,3}(?:([\s'’,])\d{3})(?:\1\d{3})*(?:\.\d+)?")
Floats = NDArray[np.float64]


class NumberAnswer(BaseModel):
    """The answer for one row."""

    value: float = Field(description="the median of what is expected: half of the truths are above")
    low: float = Field(description="the lower end of the interval that is to hold 90 % of truths")
    high: float = Field(description="its upper end")


class Number:
    """The number target."""

    kind = "number"
    wire = NumberAnswer
    main = steers = "mae"
    measures = ("mae", "rmse", "r2", "coverage")
    chooses = ""
    reads = "rows"
    outputs = "numbers"
    contradicts = False

    def read(self, value: Any, values: Mapping[str, Any]) -> float:
        """A number, or text that is one; thousands may be apart where that is unmistakable.

        >>> [TARGET.read(text, {}) for text in (" 1,234.5 ", "1 234 567", "−2e3")]
        [1234.5, 1234567.0, -2000.0]
        """
        if isinstance(value, bool) or not isinstance(value, Real | Decimal | str):
            raise ValueError(f"holds {type(value).__name__}, and a number is wanted")
        try:
            found = float(_plain(value) if isinstance(value, str) else value)
        except OverflowError:
            found = float("inf")
        if not isfinite(found) or abs(found) > LARGEST:
            raise ValueError(f"holds {str(value)[:40]}; a number of at most {LARGEST:g} is wanted")
        return found + 0.0  # -0.0 is 0.0

    def names(self, truth: float) -> list[str]:
        """A number names no class."""
        return []

    def amounts(self, truths: Sequence[float]) -> list[float]:
        """The truths themselves."""
        return list(truths)

    def strata(self, truths: Sequence[float]) -> list[str]:
        """The tenth of the rows that each stands in by its truth; fewer parts of few rows.

        >>> TARGET.strata([5.0, 1.0, 9.0] * 7)[:3]
        ['part 1 of 2', 'part 1 of 2', 'part 2 of 2']
        """
        rows = len(truths)
        parts = max(1, min(STRATA, rows // FEWEST_ROWS))
        rank = np.empty(rows, dtype=np.int64)
        rank[np.argsort(np.array(truths), kind="stable")] = np.arange(rows)
        return [f"part {part + 1} of {parts}" for part in (rank * parts // rows).tolist()]

    def check(self, truths: Sequence[float]) -> None:
        """Refuse truths that are too few or all one: NothingToLearn."""
        if len(truths) < FEWEST_ROWS:
            raise NothingToLearn(
                f"A number target needs {FEWEST_ROWS} rows or more, and there are {len(truths)}; "
                "add rows."
            )
        if min(truths) == max(truths):
            raise NothingToLearn(
                f"Every row has the same number ({truths[0]:g}), so there is nothing to learn; "
                "name another target column, or add rows with other numbers."
            )

    def learn(self, truths: Sequence[float]) -> State:
        """The median, a scale, and how far the quantiles lie from the median, in scales.

        The scale is that of a normal distribution with the same quartiles; where those are
        equal, with the same 5 % and 95 % quantiles; where those are, the standard deviation.
        """
        found = np.array(truths, dtype=np.float64)
        low, first, median, third, high = np.quantile(found, [0.05, 0.25, 0.5, 0.75, 0.95])
        spread = float(found.std()) if np.ptp(found) else 0.0
        scale = float((third - first) / 1.349 or (high - low) / 3.29 or spread or 1.0)
        offsets = _in_scales(np.array([low, median, high]), float(median), scale)
        return {
            "median": float(median),
            "scale": scale,
            "offsets": offsets.tolist(),
            "margin": 0.0,
            "rows": len(truths),
        }

    def width(self, state: State) -> int:
        """One output for each quantile."""
        return len(LEVELS)

    def config(self, state: State) -> dict[str, Any]:
        """What the outputs are, as transformers wants it; they are in scales, by quantile."""
        return {
            "id2label": dict(enumerate(ENDS)),
            "label2id": {name: number for number, name in enumerate(ENDS)},
            "problem_type": "regression",
        }

    def truth(self, truths: Sequence[float], state: State, encoded: Encoded) -> NDArray[np.float32]:
        """Each truth's distance from the median, in scales (B,)."""
        return _distances(truths, state).astype(np.float32)

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """The sum of each row's three pinball losses (B,), on truths in scales.

        Koenker, R. and Bassett, G. (1978), Regression quantiles, equation 3.1. An output is what
        a row adds to the quantile of all rows.
        """
        import torch

        levels, offsets = torch.tensor(LEVELS), torch.tensor(state["offsets"])
        above = truth[:, None] - offsets - outputs  # (B, 3)
        return torch.maximum(levels * above, (levels - 1) * above).sum(1)

    def settle(
        self, outputs: NDArray[np.float32], truths: Sequence[float], state: State
    ) -> tuple[State, str]:
        """The margin by which all intervals grow, or shrink, to hold 90 % of validation truths.

        Romano, Y. et al. (2019), Conformalized quantile regression, section 3: new rows of the
        same kind are then inside in 90 % of cases or more. With fewer than nine rows no margin
        is sure to be enough, and it is that of the farthest truth.
        """
        scaled, rows = _quantiles(outputs, state), len(truths)
        found = _distances(truths, state)
        outside = np.sort(np.maximum(scaled[:, 0] - found, found - scaled[:, 2]))
        place = min(rows, ceil(INTERVAL_SHARE * (rows + 1)))
        margin = float(outside[place - 1]) + ROUNDING
        width = float(np.median(scaled[:, 2] - scaled[:, 0])) or 1.0
        return {**state, "margin": margin}, (
            f"Intervals are made {'wider' if margin > 0 else 'narrower'} by "
            f"{200 * abs(margin) / width:.1f} % of their median width: "
            f"{int((outside <= 0).sum()):,} of {rows:,} validation truths were inside, and "
            f"{100 * INTERVAL_SHARE:.0f} % are to be."
        )

    def decode(self, outputs: NDArray[np.float32], state: State) -> list[dict[str, Any]]:
        """Outputs (B, 3) as value, low and high; low is at most value, high at least."""
        scaled = _quantiles(outputs, state)
        low = np.minimum(scaled[:, 0] - state["margin"], scaled[:, 1])
        high = np.maximum(scaled[:, 2] + state["margin"], scaled[:, 1])
        return _answers(state["median"] + state["scale"] * np.stack([low, scaled[:, 1], high], 1))

    def score(self, truth: Sequence[float], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """MAE, RMSE and R² (intervals by the delta method), and coverage (Wilson interval)."""
        told = np.array([[answer[end] for end in ENDS] for answer in answers], dtype=np.float64)
        truths, rows = np.array(truth, dtype=np.float64), len(truth)
        errors = told[:, 1] - truths
        inside = int(((told[:, 0] <= truths) & (truths <= told[:, 2])).sum())
        return [
            _mae(errors),
            _rmse(errors),
            _r2(errors, truths),
            Measure("coverage", inside / rows, *wilson(inside, rows), rows),
        ]

    def baselines(
        self,
        name: str,
        features: Any,
        truths: Sequence[float],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """Always the median; ridge regression, its interval from errors on rows left out; trees.

        Boosted trees, of tables, learn each end of the interval by itself.

        The intervals of ridge regression are those of the errors that five models make on the
        fifth of the rows that each has not seen (Barber, R. F. et al. 2021, Predictive inference
        with the jackknife+, section 3).
        """
        found = np.array(truths, dtype=np.float64)
        constant = np.tile(np.quantile(found, LEVELS), (test_features.shape[0], 1))
        learned = {"ridge regression": _ridge}
        if isinstance(features, np.ndarray):
            learned["boosted trees"] = _trees
        return [
            Baseline("median", _answers(constant)),
            *(
                Baseline(f"{name} with {what}", fit(features, found, test_features))
                for what, fit in learned.items()
            ),
        ]


def _plain(text: str) -> str:
    """A number as Python writes it; raises ValueError where a text is none, or two."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if PLAIN.fullmatch(text):
        return text
    groups = IN_GROUPS.fullmatch(text)
    if not groups:
        raise ValueError(f"holds {text[:40]!r}, which is no number")
    if groups[1] == "," and text.count(",") == 1 and "." not in text:
        raise ValueError(
            f"holds {text!r}, which may be {text.replace(',', '')} or {text.replace(',', '.')}; "
            "write it without the comma"
        )
    return text.replace(groups[1], "")


def _distances(truths: Sequence[float], state: State) -> Floats:
    return _in_scales(np.array(truths, dtype=np.float64), state["median"], state["scale"])


def _in_scales(numbers: Floats, median: float, scale: float) -> Floats:
    with np.errstate(over="ignore"):  # what is beyond every bound is clipped to ours
        scaled: Floats = np.clip((numbers - median) / scale, -FARTHEST, FARTHEST)
    return scaled


def _quantiles(outputs: NDArray[np.float32], state: State) -> Floats:
    """Outputs (B, 3) as quantiles in scales, in rising order.

    Those that cross are put in order, which brings none further from the true ones:
    Chernozhukov, V. et al. (2010), Quantile and probability curves without crossing.
    """
    return np.sort(outputs.astype(np.float64) + np.array(state["offsets"]), axis=1)


def _answers(quantiles: Floats) -> list[dict[str, Any]]:
    """Quantiles (B, 3) in rising order as answers."""
    return [{"value": value, "low": low, "high": high} for low, value, high in quantiles.tolist()]


def _ridge(features: Any, truths: Floats, test_features: Any) -> list[dict[str, Any]]:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(min(FOLDS, len(truths)), shuffle=True, random_state=0)
    left_out = truths - cross_val_predict(Ridge(), features, truths, cv=folds)
    below, above = np.quantile(left_out, [LEVELS[0], LEVELS[2]])
    found = Ridge().fit(features, truths).predict(test_features)
    return _answers(found[:, None] + np.array([min(below, 0.0), 0.0, max(above, 0.0)]))


def _trees(features: Any, truths: Floats, test_features: Any) -> list[dict[str, Any]]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    found = [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=0)
        .fit(features, truths)
        .predict(test_features)
        for level in LEVELS
    ]
    return _answers(np.sort(np.column_stack(found), axis=1))  # quantiles learned alone may cross


def _error_of_mean(values: Floats) -> float:
    """The standard error of a mean; of a single value, the value itself."""
    rows = len(values)
    return float(values.std(ddof=1)) / sqrt(rows) if rows > 1 else abs(float(values[0]))


def _mae(errors: Floats) -> Measure:
    sizes = np.abs(errors)
    value, reach = float(sizes.mean()), Z_95 * _error_of_mean(sizes)
    return Measure("mae", value, max(0.0, value - reach), value + reach, len(errors), False)


def _rmse(errors: Floats) -> Measure:
    squares = errors**2
    value, reach = float(squares.mean()), Z_95 * _error_of_mean(squares)
    low, high = sqrt(max(0.0, value - reach)), sqrt(value + reach)
    return Measure("rmse", sqrt(value), low, high, len(errors), False)


def _r2(errors: Floats, truths: Floats) -> Measure:
    """The share of the truths' variance that is explained; 0 where they do not vary.

    The reach is that of a ratio of two means, by its influence function.
    """
    rows, squares, from_mean = len(errors), errors**2, (truths - truths.mean()) ** 2
    variance, mse = float(from_mean.mean()), float(squares.mean())
    if variance <= FLAT * mse:
        return Measure("r2", 0.0, 0.0, 1.0, rows)
    left = mse / variance
    reach = Z_95 * _error_of_mean((squares - left * from_mean) / variance)
    return Measure("r2", 1 - left, 1 - left - reach, min(1.0, 1 - left + reach), rows)


TARGET = Number()
