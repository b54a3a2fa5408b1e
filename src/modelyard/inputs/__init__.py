"""Inputs: one file for each kind of column going in.

An input has never heard of a stage. What serves (`encoder`) imports no torch; what trains
(`network`, `plain_features`) loads it where it is called.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from modelyard.core.errors import UnknownName
from modelyard.runtime.encoded import Encoded

State = dict[str, Any]
Encode = Callable[[Sequence[Any]], Encoded]
KINDS = ("text",)


class PlainFeatures(Protocol):
    """Features a plain baseline learns from: scikit-learn's fit_transform and transform."""

    def fit_transform(self, values: Sequence[Any]) -> Any:
        """Learn from the training values and give their features (B, F)."""

    def transform(self, values: Sequence[Any]) -> Any:
        """The features (B, F) of other values."""


class Input(Protocol):
    """One kind of column going in."""

    kind: str

    def options(self, given: Mapping[str, Any]) -> Any:
        """What the project file has beside `kind`, checked; raises SettingInvalid."""

    def learn(self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path) -> State:
        """What has to be known of the training split to encode; plain JSON."""

    def check(self, value: Any) -> str | None:
        """What is wrong with a raw value (a sentence), or None."""

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from B raw values to pieces; `folder` is a Model, Release or backbone."""

    def network(self, backbone: Path, width: int, dropout: float) -> Any:
        """A transformers network with `width` outputs on the backbone (torch.nn.Module)."""

    def save_preprocessing(self, backbone: Path, state: State, folder: Path) -> None:
        """Put the files that the encoder needs (a tokenizer) into `folder`."""

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """What a plain baseline would use on such values, and its name in the report."""

    def example(self) -> Any:
        """A value for the API's documentation."""


def find(kind: str) -> Input:
    """The input of this kind; raises UnknownName."""
    if kind not in KINDS:
        raise UnknownName(f"There is no input kind {kind!r}; known kinds: {', '.join(KINDS)}.")
    return cast(Input, import_module(f"modelyard.inputs.{kind}").INPUT)
