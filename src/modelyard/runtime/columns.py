"""Columns: the values of one or several columns as what a graph takes, the same everywhere.

Columns of a kind that is taken together (numbers, categories) make one group, and any other
column a group of its own. A group's arrays stand under its name, unless it is the only one and
a network by itself.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.core.artefacts import ColumnState
from modelyard.core.errors import ColumnMissing, RequestInvalid
from modelyard.runtime.encoded import Encoded, side_by_side

Row = Mapping[str, Any]
Values = Sequence[Any]
PRESENT = "present"


class Encodes(Protocol):
    """What has to be known of a kind of input to encode and to check its values."""

    together: bool
    blank: Any

    def encoder(self, state: dict[str, Any], folder: Path) -> Callable[[Values], Encoded]:
        """A function from raw values to pieces."""

    def check(self, value: Any) -> str | None:
        """What is wrong with a raw value, or None."""

    def words(self, value: Any) -> str:
        """The text in a value, which limits on characters are for."""


@dataclass(frozen=True)
class Group:
    """Columns that one network reads; `name` is "" where there is no other group."""

    name: str
    kind: str
    columns: tuple[ColumnState, ...]

    @property
    def states(self) -> list[dict[str, Any]]:
        """What was learned of each column."""
        return [column.state for column in self.columns]

    def folder(self, folder: Path) -> Path:
        """Where the group's files are in the folder of a Model."""
        return folder / self.name if self.name else folder


def groups_of(
    sources: Sequence[ColumnState], find_input: Callable[[str], Encodes]
) -> tuple[Group, ...]:
    """The groups of a model's input columns, in the order of their first columns."""
    by_name: dict[str, list[ColumnState]] = {}
    for place, source in enumerate(sources):
        together = find_input(source.kind).together
        by_name.setdefault(source.kind if together else str(place), []).append(source)
    if len(by_name) == 1 and not find_input(sources[0].kind).together:
        by_name = {"": list(sources)}
    return tuple(Group(name, own[0].kind, tuple(own)) for name, own in by_name.items())


def is_missing(value: Any) -> bool:
    """Nothing, white space alone, or not a number."""
    if isinstance(value, np.ndarray):
        return False
    return value is None or value != value or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True)
class Columns:
    """Encodes and checks rows; `checks` and `encoders` are by column, in the model's order."""

    groups: tuple[Group, ...]
    checks: Mapping[str, Callable[[Any], str | None]]
    encoders: Mapping[str, Callable[[Values], Encoded]]
    words: Mapping[str, Callable[[Any], str]]
    """The text in a column's values."""
    blanks: Mapping[str, Any]
    """What stands for a missing value of a column that is a group by itself."""

    @classmethod
    def open(
        cls,
        sources: Sequence[ColumnState],
        folder_of: Callable[[Group], Path],
        find_input: Callable[[str], Encodes],
        unasked: Collection[str] = (),
    ) -> "Columns":
        """`folder_of` gives the folder with a group's files: tokenizers and the like.

        No row has the columns that are `unasked`.
        """
        groups = groups_of(sources, find_input)
        pairs = [(g, source) for g in groups for source in g.columns]
        kinds = {source.column: find_input(source.kind) for source in sources}
        opened = {
            source.column: kinds[source.column].encoder(source.state, folder_of(group))
            for group, source in pairs
        }
        return cls(
            groups=groups,
            checks={name: kind.check for name, kind in kinds.items() if name not in unasked},
            encoders=opened,
            words={name: kind.words for name, kind in kinds.items() if name not in unasked},
            blanks={name: kind.blank for name, kind in kinds.items() if not kind.together},
        )

    @property
    def names(self) -> list[str]:
        """The columns that rows have, in the model's order."""
        return list(self.checks)

    @property
    def is_alone(self) -> bool:
        """Whether there is a single column, which every row must have."""
        return len(self.checks) == 1

    def encode(self, values: Mapping[str, Values], is_lean: bool = False) -> Encoded:
        """The values of each column (B,) as pieces of the B rows; others are missing in all rows.

        Where `is_lean`, groups that can be missing and are so in all rows have no arrays.
        """
        if self.groups[0].name == "":
            [(name, encode)] = self.encoders.items()
            return encode(values[name])
        missing = [None] * len(next(iter(values.values())))
        given = {name: values.get(name, missing) for name in self.encoders}
        read = [
            group
            for group in self.groups
            if not is_lean
            or any(c.column in values or c.column not in self.blanks for c in group.columns)
        ]
        return side_by_side({group.name: self._group(group, given) for group in read})

    def _group(self, group: Group, values: Mapping[str, Values]) -> Encoded:
        encoded = [self._column(source.column, values[source.column]) for source in group.columns]
        first = encoded[0]
        if len(encoded) == 1:
            return first
        arrays = {
            name: np.concatenate([each.arrays[name] for each in encoded], axis=1)
            for name in first.arrays
        }
        return Encoded(arrays, first.row_of, first.lengths)

    def _column(self, name: str, values: Values) -> Encoded:
        if name not in self.blanks:
            return self.encoders[name](values)
        blank = self.blanks[name]
        lacks = [is_missing(value) for value in values]
        encoded = self.encoders[name](
            [blank if lack else value for value, lack in zip(values, lacks, strict=True)]
        )
        present: NDArray[np.float32] = 1 - np.array(lacks, dtype=np.float32)[encoded.row_of, None]
        return Encoded({**encoded.arrays, PRESENT: present}, encoded.row_of, encoded.lengths)

    def problem(self, row: Row) -> str | None:
        """Why this row cannot be answered, or None; raises ColumnMissing."""
        if (found := self._problem(row)) is None:
            return None
        name, problem = found
        return f"column {name!r}: {problem}" if name and not self.is_alone else problem

    def lacking(self, row: Row, which: str) -> ColumnMissing | None:
        """The error that says which column `row` has not, or None."""
        name = next((name for name in self.checks if name not in row), None)
        if name is None:
            return None
        known = ", ".join(map(repr, row)) or "none"
        more = "" if self.is_alone else " (give null where there is no value)"
        return ColumnMissing(f"{which} lacks the column {name!r}{more}; its columns are: {known}.")

    def _problem(self, row: Row) -> tuple[str, str] | None:
        if error := self.lacking(row, "A row"):
            raise error
        for name, check in self.checks.items():
            if not self.is_alone and is_missing(row[name]):
                continue
            if problem := check(row[name]):
                return name, problem
        if not self.is_alone and all(is_missing(row[name]) for name in self.checks):
            return "", f"it has no value in any of {', '.join(map(repr, self.checks))}"
        return None

    def values(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """The input columns of rows; raises ColumnMissing, RequestInvalid for the first bad one."""
        if isinstance(rows, Mapping | str) or not all(isinstance(row, Mapping) for row in rows):
            raise RequestInvalid(
                f"Rows are a list of objects such as {{{self.names[0]!r}: …}}, one for each row."
            )
        for number, row in enumerate(rows, start=1):
            if error := self.lacking(row, f"Row {number}"):
                raise error
            if found := self._problem(row):
                column = f", column {found[0]!r}" if found[0] else ""
                raise RequestInvalid(f"Row {number}{column}: {found[1]}.")
        return {name: [row[name] for row in rows] for name in self.names}
