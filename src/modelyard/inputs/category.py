"""Category: a column with one of several values; one never seen before is answered too."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from modelyard.inputs import Encode, PlainFeatures, State, options_of
from modelyard.runtime.columns import is_missing
from modelyard.runtime.encoded import Encoded

OTHER, MISSING, FIRST = range(3)
MOST_CHARACTERS = 1000


class Options(BaseModel):
    """What may stand beside `kind` of a category input."""

    model_config = ConfigDict(extra="forbid")
    least_rows: int = Field(3, ge=1, description="training rows below which a value is as unknown")
    most_values: int = Field(1000, ge=1, description="values told apart, the most frequent ones")


class Category:
    """The category input."""

    kind = "category"
    together = True
    has_tokens = False
    identifies = False
    blank = None
    datatype = "BYTES"
    is_binary = False
    is_file = False
    extra = ""

    def options(self, given: Mapping[str, Any]) -> Options:
        """What stands beside `kind`, checked; raises SettingInvalid."""
        return options_of(Options, self.kind, given)

    def learn(
        self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path, reads: str
    ) -> State:
        """The values told apart, in sorted order.

        Rare ones share a code with those that no row has, so that what to make of these is learned.
        """
        chosen = self.options(options)
        counts = Counter(str(value) for value in values if not is_missing(value))
        common = [v for v, n in counts.most_common(chosen.most_values) if n >= chosen.least_rows]
        return {"values": sorted(common)}

    def read(self, value: Any, beside: Path) -> Any:
        """A value as text; a whole number has no decimals.

        >>> INPUT.read(2.0, Path()), INPUT.read(True, Path())
        ('2', 'True')
        """
        return value if self.check(value) else _text(value)

    def check(self, value: Any) -> str | None:
        """Text, a number or a truth value is wanted."""
        if not isinstance(value, str | int | float):
            return f"one value was expected, got {type(value).__name__}"
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            return f"the value has {len(value):,} characters, at most {MOST_CHARACTERS:,} are taken"
        if isinstance(value, str) and value.encode("utf-8", "ignore").decode() != value:
            return "the value holds half a surrogate pair, which is no character"
        return None

    def words(self, value: Any) -> str:
        """A category is a name, not words."""
        return ""

    def key(self, value: Any) -> str:
        """The value as text."""
        return str(value)

    def picture(self, value: Any) -> None:
        """Nothing is to see."""
        return

    def tokens(self, options: Mapping[str, Any], characters: float) -> float:
        """As much as one token."""
        return 1.0

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from values to `codes` (B, 1)."""
        codes = {value: code for code, value in enumerate(state["values"], start=FIRST)}
        return partial(_encode, codes)

    def network(self, states: Sequence[State], backbone: Path, width: int, dropout: float) -> Any:
        """Codes (P, N) as vectors, then one layer: (P, width)."""
        from modelyard.models.tabular import Categories, with_weights

        sizes = [FIRST + len(state["values"]) for state in states]
        return with_weights(Categories(sizes, width), backbone)

    def save(self, network: Any, states: Sequence[State], backbone: Path, folder: Path) -> None:
        """The vectors' and the layer's weights."""
        from modelyard.models.tabular import save

        save(network, folder)

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """One feature for each value."""
        return "categories", _Plain()

    def example(self) -> Any:
        """A value for the API's documentation."""
        return "a"

    def schema(self) -> dict[str, Any]:
        """Text, a number or a truth value, as JSON Schema."""
        return {"type": ["string", "number", "boolean"], "minLength": 1, "pattern": r"\S"}


class _Plain:
    """One feature for each value of the training rows: (B, F)."""

    def __init__(self) -> None:
        from sklearn.preprocessing import OneHotEncoder

        self.encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=3)

    def fit_transform(self, values: Sequence[Any]) -> Any:
        """Learn the values and give their features."""
        return self.encoder.fit_transform(_column(values))

    def transform(self, values: Sequence[Any]) -> Any:
        """The features of other values."""
        return self.encoder.transform(_column(values))


def _column(values: Sequence[Any]) -> Any:
    return np.array([["" if is_missing(v) else _text(v)] for v in values], dtype=object)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _encode(codes: Mapping[str, int], values: Sequence[Any]) -> Encoded:
    found = [MISSING if is_missing(v) else codes.get(_text(v), OTHER) for v in values]
    rows = len(values)
    column = np.array(found, dtype=np.int64)[:, None]
    return Encoded({"codes": column}, np.arange(rows), np.ones(rows, dtype=np.int64))


INPUT = Category()
