"""Inputs: one file for each kind of column going in.

An input has never heard of a stage. What serves (`encoder`) imports no torch; what trains
(`network`, `plain_features`) loads it where it is called.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from modelyard.core import digest
from modelyard.core.artefacts import ColumnState
from modelyard.core.errors import SettingInvalid, UnknownName
from modelyard.runtime.encoded import Encoded

State = dict[str, Any]
Encode = Callable[[Sequence[Any]], Encoded]
Options = TypeVar("Options", bound=BaseModel)
KINDS = ("text", "image", "number", "category")


class PlainFeatures(Protocol):
    """Features a plain baseline learns from: scikit-learn's fit_transform and transform."""

    def fit_transform(self, values: Sequence[Any]) -> Any:
        """Learn from the training values and give their features (B, F)."""

    def transform(self, values: Sequence[Any]) -> Any:
        """The features (B, F) of other values."""


class Input(Protocol):
    """One kind of column going in."""

    kind: str
    together: bool
    """Whether all columns of this kind are read by one network, which trains from nothing."""
    has_tokens: bool
    """Whether a network of it has outputs for each token, and not only for the whole value."""
    identifies: bool
    """Whether a value says all there is of its row: equal ones cannot have two truths."""
    blank: Any
    """What stands for a missing value where it is encoded."""
    datatype: str
    """Of a tensor of values in the Open Inference Protocol: BYTES or FP64."""
    is_binary: bool
    """Whether an element of such a tensor is a file's bytes, and not text."""
    is_file: bool
    """Whether a value in a file of rows may be the path of a file that holds it."""

    extra: str
    """The extra of the package that reading values needs; "" for none."""

    def options(self, given: Mapping[str, Any]) -> Any:
        """What the project file has beside `kind`, checked; raises SettingInvalid."""

    def learn(
        self, values: Sequence[Any], options: Mapping[str, Any], backbone: Path, reads: str
    ) -> State:
        """What has to be known of the training split to encode; plain JSON.

        `reads` is what a target reads of the network: `rows`, `tokens` or `vectors`, where it has
        such.
        """

    def read(self, value: Any, beside: Path) -> Any:
        """A raw value as a Dataset keeps it; a relative path starts from `beside`.

        A value that cannot be read is given back as it is, for `check` to tell what is wrong.
        """

    def check(self, value: Any) -> str | None:
        """What is wrong with a value that is not missing (a sentence), or None."""

    def words(self, value: Any) -> str:
        """The text in a value: what near duplicates and languages are told by; may be empty."""

    def key(self, value: Any) -> str:
        """What equal values have in common."""

    def picture(self, value: Any) -> str | None:
        """A small picture of a value as a data: URL, where there is something to see."""

    def tokens(self, options: Mapping[str, Any], characters: float) -> float:
        """About what a value costs to read, where one has so many characters on average."""

    def encoder(self, state: State, folder: Path) -> Encode:
        """A function from B raw values to pieces; `folder` is a Model, Release or backbone."""

    def network(self, states: Sequence[State], backbone: Path, width: int, dropout: float) -> Any:
        """A network from the arrays of columns with these states to (P, width).

        Where `tokens` are read, it is one to (P, T, width); where `vectors` are, one to vectors
        (P, W) of length 1, and the width is its own.
        `backbone` is a pre-trained network's folder, or one that `save` wrote.
        """

    def save(self, network: Any, states: Sequence[State], backbone: Path, folder: Path) -> None:
        """Write the network, and what the encoder needs, into `folder`."""

    def plain_features(self, values: Sequence[Any]) -> tuple[str, PlainFeatures]:
        """What a plain baseline would use on such values, and its name in the report."""

    def example(self) -> Any:
        """A value for the API's documentation."""

    def schema(self) -> Mapping[str, Any]:
        """A value that is not missing, as JSON Schema."""


def find(kind: str) -> Input:
    """The input of this kind; raises UnknownName."""
    if kind not in KINDS:
        raise UnknownName(f"There is no input kind {kind!r}; known kinds: {', '.join(KINDS)}.")
    return cast(Input, import_module(f"modelyard.inputs.{kind}").INPUT)


def options_of(model: type[Options], kind: str, given: Mapping[str, Any]) -> Options:
    """What stands beside `kind` in [inputs] as a model's fields; raises SettingInvalid."""
    names = list(model.model_fields)
    own = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of [inputs]"
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            there_are = f"there are {', '.join(names)}." if names else "there are none."
            hint = f"did you mean {near[0]!r}?" if near else there_are
            raise SettingInvalid(f"{own.capitalize()} has no option {name!r}; {hint}")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingInvalid(
            f"The option {first['loc'][0]!r} of {own}: {first['msg']}; got {first['input']!r}."
        ) from None


def row_digests(
    sources: Sequence[ColumnState], values: Mapping[str, Sequence[Any]], numbers: Sequence[int]
) -> NDArray[np.uint64]:
    """What a row is known again by (B,): its values, or, where equal rows may differ, its number.

    `numbers` are the rows' places in the source. Rows of a table are known by place and values.
    """
    telling = [find(source.kind).identifies for source in sources]
    rows = zip(*(values[source.column] for source in sources), strict=True)
    digests = [
        digest.row_digest(row if _is_told(row, telling) else (*row, number))
        for row, number in zip(rows, numbers, strict=True)
    ]
    return np.array(digests, dtype=np.uint64)


def _is_told(row: Sequence[Any], telling: Sequence[bool]) -> bool:
    """Whether a row has a value that says all there is of it."""
    return any(tells and value is not None for value, tells in zip(row, telling, strict=True))
