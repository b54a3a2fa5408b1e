"""Runtime: a Model or Release, opened; rows in, answers out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from modelyard.core.artefacts import Model, ModelSpec
from modelyard.core.errors import ColumnMissing, RequestInvalid
from modelyard.runtime.encoded import Encoded, pooled
from modelyard.runtime.graph import Graph

PART_ROWS = 4096
Row = Mapping[str, Any]
Answer = dict[str, Any]


class Encodes(Protocol):
    """What the runtime needs of an input."""

    def encoder(self, state: dict[str, Any], folder: Path) -> Callable[[Sequence[Any]], Encoded]:
        """A function from raw values to pieces."""

    def check(self, value: Any) -> str | None:
        """What is wrong with a raw value, or None."""


class Decodes(Protocol):
    """What the runtime needs of a target."""

    @property
    def wire(self) -> type[BaseModel]:
        """An answer's fields."""

    def decode(self, outputs: NDArray[np.float32], state: dict[str, Any]) -> list[Answer]:
        """Outputs (B, C) as B answers."""


@dataclass(frozen=True)
class Runtime:
    """Predicts with a graph: the same encode, graph and decode for audit, files and API."""

    spec: ModelSpec
    graph: Graph
    column: str
    encode_values: Callable[[Sequence[Any]], Encoded]
    check_value: Callable[[Any], str | None]
    decode_outputs: Callable[[NDArray[np.float32], dict[str, Any]], list[Answer]]
    answer_fields: tuple[str, ...]

    @classmethod
    def open(
        cls,
        folder: Path,
        find_input: Callable[[str], Encodes],
        find_target: Callable[[str], Decodes],
        threads: int | None = None,
    ) -> "Runtime":
        """Open a folder; the two finders give what knows the input and the target."""
        spec = Model(folder).spec
        source = spec.inputs[0]
        kind, target = find_input(source.kind), find_target(spec.target.kind)
        return cls(
            spec=spec,
            graph=Graph(folder / str(spec.graph), threads),
            column=source.column,
            encode_values=kind.encoder(source.state, folder),
            check_value=kind.check,
            decode_outputs=target.decode,
            answer_fields=tuple(target.wire.model_fields),
        )

    def problem(self, row: Row) -> str | None:
        """Why this row cannot be answered, or None; raises ColumnMissing."""
        if self.column not in row:
            raise self._lacking(row, "A row")
        return self.check_value(row[self.column])

    def _lacking(self, row: Row, which: str) -> ColumnMissing:
        known = ", ".join(map(repr, row)) or "none"
        return ColumnMissing(f"{which} lacks the column {self.column!r}; its columns are: {known}.")

    def values(self, rows: Sequence[Row]) -> list[Any]:
        """The input column of each row; raises ColumnMissing, RequestInvalid."""
        if isinstance(rows, Mapping | str) or not all(isinstance(row, Mapping) for row in rows):
            raise RequestInvalid(
                f"Rows are a list of objects such as {{{self.column!r}: …}}, one for each row."
            )
        for number, row in enumerate(rows, start=1):
            if self.column not in row:
                raise self._lacking(row, f"Row {number}")
            if problem := self.problem(row):
                raise RequestInvalid(f"Row {number}, column {self.column!r}: {problem}.")
        return [row[self.column] for row in rows]

    def encode(self, rows: Sequence[Row]) -> Encoded:
        """Rows as pieces; any thread may do this."""
        return self.encode_values(self.values(rows))

    def outputs(self, encoded: Encoded) -> NDArray[np.float32]:
        """Outputs (B, C) of encoded rows, pooled over each row's pieces."""
        return pooled(self.graph.outputs(encoded), encoded.row_of)

    def decode(self, outputs: NDArray[np.float32]) -> list[Answer]:
        """Outputs (B, C) as answers."""
        return self.decode_outputs(outputs, self.spec.target.state)

    def predict(self, rows: Sequence[Row]) -> list[Answer]:
        """Answers for rows, in their order; the memory for encoded rows is bounded.

        Raises ColumnMissing or RequestInvalid for the first bad row before any is answered.
        """
        values = self.values(rows)
        return [answer for part in _parts(values) for answer in self._answers(part)]

    def _answers(self, values: Sequence[Any]) -> list[Answer]:
        return self.decode(self.outputs(self.encode_values(values)))


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Values in parts long enough that batches by length have little padding."""
    for start in range(0, len(values), PART_ROWS):
        yield values[start : start + PART_ROWS]
