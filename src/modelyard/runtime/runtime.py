"""Runtime: a Model or Release, opened; rows in, answers out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from modelyard.core.artefacts import Model, ModelSpec
from modelyard.core.errors import RequestInvalid
from modelyard.runtime.columns import Columns, Encodes, Row, is_missing
from modelyard.runtime.encoded import Encoded, RowOutputs, TokenOutputs, of_rows
from modelyard.runtime.engine import ONNX_RUNTIME, is_installed
from modelyard.runtime.graph import Graph
from modelyard.runtime.index import MOST, Index, Pool, names_in, unit

PART_ROWS = 4096
Answer = dict[str, Any]
Pools = Sequence[Pool]
SEEN = "seen"
"""In the state of a target that picks from candidates: the column with those that a row has."""


class Decodes(Protocol):
    """What the runtime needs of a target."""

    @property
    def wire(self) -> type[BaseModel]:
        """An answer's fields."""

    def decode(self, outputs: Any, state: dict[str, Any]) -> list[Answer]:
        """Outputs of B rows as B answers."""


@dataclass(frozen=True)
class Runtime:
    """Predicts with a graph: the same encode, graph and decode for audit, files and API."""

    spec: ModelSpec
    graph: Graph
    columns: Columns
    decode_outputs: Callable[[Any, dict[str, Any]], list[Answer]]
    answer_fields: tuple[str, ...]
    index: Index | None = None
    """What a target that picks its answers picks from."""

    @classmethod
    def open(
        cls,
        folder: Path,
        find_input: Callable[[str], Encodes],
        find_target: Callable[[str], Decodes],
        threads: int | None = None,
        shares: int | None = None,
    ) -> "Runtime":
        """Open a folder; the two finders give what knows the inputs and the target.

        `threads` and `shares` are the graph's. Where the engine that the release was made with is
        not installed, ONNX Runtime computes the graph.
        """
        spec = Model(folder).spec
        engine = spec.engine if is_installed(spec.engine) else ONNX_RUNTIME
        target = find_target(spec.target.kind)
        return cls(
            spec=spec,
            graph=Graph(folder / str(spec.graph), threads, shares, engine),
            columns=columns_of(spec, folder, find_input),
            decode_outputs=target.decode,
            answer_fields=tuple(target.wire.model_fields),
            index=Index.load(folder),
        )

    def encode(self, rows: Sequence[Row]) -> Encoded:
        """Rows as pieces; any thread may do this. Raises ColumnMissing, RequestInvalid."""
        return self.columns.encode(self.columns.values(rows))

    def outputs(self, encoded: Encoded) -> RowOutputs:
        """Outputs of encoded rows: pooled over each row's pieces, or of all its tokens."""
        return of_rows(self.graph.outputs(encoded), encoded)

    def decode(self, outputs: RowOutputs, pools: Pools | None = None) -> list[Answer]:
        """Outputs of rows as answers; `pools` (B,) as in `predict`."""
        state = self.spec.target.state
        if self.index is None or isinstance(outputs, TokenOutputs):
            return self.decode_outputs(outputs, state)
        return self.decode_outputs(self.index.search(outputs, MOST, pools), state)

    def predict(self, rows: Sequence[Row], pools: Pools | None = None) -> list[Answer]:
        """Answers for rows, in their order; the memory for encoded rows is bounded.

        Where answers are picked from candidates, `pools` (B,) may say what each row's are picked
        from; None is as the rows say themselves.
        Raises ColumnMissing or RequestInvalid for the first bad row before any is answered.
        """
        values = self.columns.values(rows)
        pools = self.pools(rows) if pools is None else pools
        answers: list[Answer] = []
        for part in _parts(values, len(rows)):
            own = None if pools is None else pools[len(answers) : len(answers) + PART_ROWS]
            answers += self.decode(self.outputs(self.columns.encode(part)), own)
        return answers

    def pools(self, rows: Sequence[Row]) -> Pools | None:
        """What the answers of rows are picked from: not what a row says it has.

        Raises RequestInvalid for the first row whose candidates cannot be read.
        """
        column = self.spec.target.state.get(SEEN)
        if self.index is None or not column:
            return None
        return [Pool(without=_seen(row, number, column)) for number, row in enumerate(rows, 1)]

    def problem(self, row: Row) -> str | None:
        """Why this row cannot be answered, or None; raises ColumnMissing."""
        column = self.spec.target.state.get(SEEN)
        if (found := self.columns.problem(row)) or not column:
            return found
        try:
            _seen(row, 1, column)
        except RequestInvalid as error:
            return str(error).partition(", ")[2].rstrip(".")
        return None

    def vectors(self, values: Sequence[Any]) -> NDArray[np.float32]:
        """The vectors (B, W) of candidates that have these texts."""
        told_by = self.spec.candidate or self.spec.inputs[0]  # older ones have one text alone
        outputs = self.outputs(self.columns.encode({told_by.column: values}))
        assert not isinstance(outputs, TokenOutputs)
        return unit(outputs)


def _seen(row: Row, number: int, column: str) -> Sequence[str]:
    value = row.get(column)
    try:
        return () if is_missing(value) else names_in(value)
    except ValueError as error:
        raise RequestInvalid(f"Row {number}, column {column!r}: it {error}.") from None


def columns_of(spec: ModelSpec, folder: Path, find_input: Callable[[str], Encodes]) -> Columns:
    """The columns of the Model or Release in a folder."""
    return Columns.open(spec.columns, lambda group: group.folder(folder), find_input, spec.unasked)


def _parts(values: Mapping[str, Sequence[Any]], rows: int) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Values in parts long enough that batches by length have little padding."""
    for start in range(0, rows, PART_ROWS):
        yield {name: own[start : start + PART_ROWS] for name, own in values.items()}
