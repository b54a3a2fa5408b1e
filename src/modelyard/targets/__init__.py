"""Targets: one file for each kind of answer coming out.

What serves (`decode`, `wire`) imports no torch; `losses` loads it where it is called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from modelyard.core.errors import PairImpossible, UnknownName
from modelyard.core.measure import Measure as Measure
from modelyard.runtime.encoded import Encoded, Ragged

State = dict[str, Any]
WRONG, RIGHT, HAD = 0, 1, 2
"""What a candidate is to a row: HAD is seen by it, and not right."""
MODULES = {
    "class": "class_",
    "labels": "labels",
    "number": "number",
    "spans": "spans",
    "match": "match",
}


@dataclass(frozen=True)
class Baseline:
    """A plain model's answers on the test rows."""

    name: str
    answers: list[dict[str, Any]]


class Target(Protocol):
    """One kind of answer coming out."""

    kind: str
    wire: type[BaseModel]
    """An answer as the API gives it."""
    main: str
    """The name of the measure that heads the report."""
    steers: str
    """The name of the one that says which epoch was the best: that with the least noise."""
    measures: tuple[str, ...]
    """The names of what `score` gives: a limit may stand on each."""
    chooses: str
    """What it answers with of the labels: `one of`, `any of`, `spans of`; empty without labels."""
    reads: str
    """What of the inputs it is told by: `rows`, the `tokens` of one text, or its `vectors`.

    A target that reads vectors picks its answers from candidates: its truths are objects with the
    ids of a row's `right` ones and, or None, of its `pool`, and it decodes what was Ranked.
    """
    outputs: str
    """What the network's outputs are, for a smaller one that learns from them.

    Logits of `classes`, of `labels`, or of each of the `tokens`; `numbers`, or `vectors`.
    """
    contradicts: bool
    """Whether two rows with equal inputs and other answers cannot both be right."""

    def read(self, value: Any, values: Mapping[str, Any]) -> Any:
        """A raw value as a Dataset keeps it; raises ValueError with what is wrong with it.

        `values` are the row's inputs, by column: what a truth may have to be seen beside.
        """

    def names(self, truth: Any) -> list[str]:
        """The classes that a row's truth names, none where it is no matter of classes."""

    def amounts(self, truths: Sequence[Any]) -> list[float] | None:
        """The truths as numbers, where that is what they are."""

    def strata(self, truths: Sequence[Any]) -> list[str]:
        """What each part of the rows is to have the same shares of (B,)."""

    def learn(self, truths: Sequence[Any]) -> State:
        """What has to be known of the training split; plain JSON."""

    def check(self, truths: Sequence[Any]) -> None:
        """Refuse truths of all rows that cannot be learned from.

        Raises TooFewClasses, ClassTooSmall, NothingToLearn.
        """

    def width(self, state: State) -> int:
        """How many numbers the network gives for a row, or for a token."""

    def config(self, state: State) -> dict[str, Any]:
        """What the transformers configuration has to know: id2label, label2id."""

    def truth(
        self, truths: Sequence[Any], state: State, encoded: Encoded
    ) -> NDArray[np.generic] | Ragged:
        """Truths as the losses want them (B, ...), or of each token of the B `encoded` rows."""

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """Loss of each row (B,), never reduced; torch in, torch out.

        From outputs (B, C) and truths (B, ...), or of tokens (B, T, C) and (B, T).
        """

    def decode(self, outputs: Any, state: State) -> list[dict[str, Any]]:
        """Outputs (B, C) of rows, or TokenOutputs, as B answers, plain Python."""

    def score(self, truth: Sequence[Any], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """Measures of answers against truths, each with its 95 % interval."""

    def baselines(
        self,
        name: str,
        features: Any,
        values: Sequence[Any],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """Plain models learned on the training split, such as a constant and a linear one.

        They may go by plain features, which have a name, or by the test rows' own values.
        """


def refuse_pair(target: Target, columns: Mapping[str, bool]) -> None:
    """Raise PairImpossible where a target stands in one text, and no single column is such.

    `columns` says of each input column whether it has tokens.
    """
    if target.reads == "tokens" and list(columns.values()) != [True]:
        named = ", ".join(columns)
        raise PairImpossible(
            f"The target kind {target.kind!r} is told by the words of one text, and [inputs] names "
            f"{named}; keep one column of kind text, or choose another target.kind."
        )


@runtime_checkable
class Picks(Target, Protocol):
    """A target that picks its answers from candidates."""

    def losses_of_all(self, rows: Any, candidates: Any, standing: Any) -> Any:
        """Losses of a row's right candidates, summed (B,), where it stands beside all candidates.

        From their vectors (B, W), those of the candidates (N, W), and what these are to it (B, N).
        """


@runtime_checkable
class Settles(Protocol):
    """A target that learns from a trained network's outputs on rows it was not trained on."""

    def settle(self, outputs: Any, truths: Sequence[Any], state: State) -> tuple[State, str]:
        """The state with what the outputs for validation rows (B,) add, and a sentence on it.

        Called once, after training, where there are validation rows.
        """


def find(kind: str) -> Target:
    """The target of this kind; raises UnknownName."""
    if kind not in MODULES:
        raise UnknownName(f"There is no target kind {kind!r}; known kinds: {', '.join(MODULES)}.")
    return cast(Target, import_module(f"modelyard.targets.{MODULES[kind]}").TARGET)
