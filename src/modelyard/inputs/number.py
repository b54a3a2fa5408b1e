"""Number: a column of amounts, counts or measurements; a missing one is information too."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from modelyard.inputs import Encode, PlainFeatures, State, options_of
from modelyard.runtime.columns import is_missing
from modelyard.runtime.encoded import Encoded

MOST = 1e6
"""Scales from the median beyond which a value is no further away."""
Scaled = NDArray[np.float32]


class Options(BaseModel):
    """What may stand beside `kind` of a number input."""

    model_config = ConfigDict(extra="forbid")
    bins: int = Field(16, ge=1, le=256, description="parts of the range told apart, each as full")


class Number:
    """The number input."""

    kind = "number"
    together = True
    has_tokens = False
    identifies = False
    blank = None
    datatype = "FP64"
    is_binary = False
    is_file = False
    extra = ""

    def options(self, given: Mapping[str, Any]) -> Options:
        """What stands beside `kind`, checked; raises SettingInvalid."""
        return options_of(Options, self.kind, given)

    def learn(
        self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path, reads: str
    ) -> State:
        """Median, scale, and the edges of bins that hold equally many values, in scales.

        The scale is that of a normal distribution with the same quartiles; where those are equal,
        the standard deviation.
        """
        bins = self.options(options).bins
        known = _floats(values)
        known = known[~np.isnan(known)]
        if not len(known):
            return {"median": 0.0, "scale": 1.0, "edges": [0.0] * (bins + 1)}
        low, median, high = np.quantile(known, [0.25, 0.5, 0.75])
        scale = (high - low) / 1.349 or float(known.std()) or 1.0
        scaled = _scaled(known, float(median), float(scale))
        edges = np.quantile(scaled, np.linspace(0, 1, bins + 1))
        return {"median": float(median), "scale": float(scale), "edges": edges.tolist()}

    def read(self, value: Any, beside: Path) -> Any:
        """A number as a float, also where it is written as text."""
        return value if self.check(value) else float(value)

    def check(self, value: Any) -> str | None:
        """A finite number is wanted, or text that is one.

        >>> INPUT.check(" 1e3 "), INPUT.check("12 km")
        (None, "a number was expected, got '12 km'")
        """
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return f"a number was expected, got {type(value).__name__}"
        try:
            found = float(value)
        except (ValueError, OverflowError):
            return f"a number was expected, got {str(value)[:40]!r}"
        return None if isfinite(found) or isnan(found) else "the number is not finite"

    def words(self, value: Any) -> str:
        """No words are in a number."""
        return ""

    def key(self, value: Any) -> str:
        """The number as Python writes it."""
        return repr(value)

    def picture(self, value: Any) -> None:
        """Nothing is to see."""
        return

    def tokens(self, options: Mapping[str, Any], characters: float) -> float:
        """As much as one token."""
        return 1.0

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from numbers to `values` (B, 2): scales from the median; 1 where missing."""
        return partial(_encode, state["median"], state["scale"])

    def network(self, states: Sequence[State], backbone: Path, width: int, dropout: float) -> Any:
        """Numbers (P, 2 N) in bins, then one layer: (P, width)."""
        from modelyard.models.tabular import Numbers, with_weights

        return with_weights(Numbers([state["edges"] for state in states], width), backbone)

    def save(self, network: Any, states: Sequence[State], backbone: Path, folder: Path) -> None:
        """The layer's weights."""
        from modelyard.models.tabular import save

        save(network, folder)

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """The number scaled, and whether it is missing."""
        return "numbers", _Plain()

    def example(self) -> Any:
        """A value for the API's documentation."""
        return 1.5

    def schema(self) -> dict[str, Any]:
        """A number, as JSON Schema."""
        return {"type": "number"}


class _Plain:
    """Numbers scaled by mean and deviation, and whether each is missing: (B, 2)."""

    def __init__(self) -> None:
        self.mean, self.deviation = 0.0, 1.0

    def fit_transform(self, values: Sequence[Any]) -> Any:
        """Learn mean and deviation of the training values and give their features."""
        known = _floats(values)
        if not np.isnan(known).all():
            self.mean, self.deviation = float(np.nanmean(known)), float(np.nanstd(known)) or 1.0
        return self.transform(values)

    def transform(self, values: Sequence[Any]) -> Any:
        """The features of other values."""
        found = (_floats(values) - self.mean) / self.deviation
        missing = np.isnan(found)
        return np.column_stack([np.where(missing, 0.0, found), missing])


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if is_missing(v) else float(v) for v in values], dtype=np.float64)


def _scaled(values: NDArray[np.float64], median: float, scale: float) -> NDArray[np.float64]:
    return np.clip((values - median) / scale, -MOST, MOST)


def _encode(median: float, scale: float, values: Sequence[Any]) -> Encoded:
    scaled = _scaled(_floats(values), median, scale)
    missing = np.isnan(scaled)
    both = np.column_stack([np.where(missing, 0.0, scaled), missing]).astype(np.float32)
    rows = len(values)
    return Encoded({"values": both}, np.arange(rows), np.ones(rows, dtype=np.int64))


INPUT = Number()
