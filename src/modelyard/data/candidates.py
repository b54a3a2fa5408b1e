"""Candidates: what a match target picks from, each with an id and a text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digest import of_text
from modelyard.core.errors import ColumnMissing, RowsUnreadable
from modelyard.data.files import open_filled

ID, TEXT = "id", "text"
FILE = "candidates.parquet"
"""Of a Dataset."""


@dataclass
class Catalogue:
    """Candidates by id: those of a file, or, where there is none, those that the rows name."""

    texts: dict[str, str] = field(default_factory=dict)
    is_file: bool = False

    @classmethod
    def open(cls, file: Path | None) -> "Catalogue":
        """The candidates of a file; None is an empty one, which grows by what is asked of it."""
        return cls(read(file), True) if file else cls()

    def id_of(self, name: str) -> str:
        """The id of a candidate that a row names by id, or by text; raises ValueError."""
        if (own := self.known(name)) is None:
            raise ValueError(f"names {name[:60]!r}, which is not among the candidates")
        return own

    def known(self, name: str) -> str | None:
        """As `id_of`, but None where a file has no such candidate."""
        own = name if name in self.texts else of_text(name)
        if not self.is_file:
            self.texts.setdefault(own, name)
        return own if own in self.texts else None

    def kept(self, truths: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """The candidates of a file, or those that truths name."""
        if self.is_file:
            return self.texts
        named = (each for t in truths for own in t.values() for each in own or ())
        return {each: self.texts[each] for each in dict.fromkeys(named)}


def read(file: Path) -> dict[str, str]:
    """The texts of a file of candidates by their ids; raises RowsUnreadable, ColumnMissing.

    It has a column `text`, and maybe a column `id`.
    """
    found: dict[str, str] = {}
    for record in open_filled(file).records:
        if record.problem:
            raise RowsUnreadable(f"{file}, row {record.number}: {record.problem}; mend it.")
        if TEXT not in record.values:
            raise ColumnMissing(
                f"{file} has no column {TEXT!r}; its columns are "
                f"{', '.join(map(repr, record.values))}: candidates have a text, and maybe an id."
            )
        text = record.values[TEXT]
        if not isinstance(text, str) or not text.strip():
            raise RowsUnreadable(f"{file}, row {record.number}: the candidate has no text; add it.")
        own = record.values.get(ID)
        found[of_text(text) if own is None else str(own)] = text
    return found


def read_ids(file: Path) -> list[str]:
    """The ids in a file; raises RowsUnreadable, ColumnMissing."""
    records = list(open_filled(file).records)
    for record in records:
        if record.problem or ID not in record.values:
            why = record.problem or f"there is no column {ID!r}"
            raise ColumnMissing(f"{file}, row {record.number}: {why}; name candidates by their id.")
    return [str(record.values[ID]) for record in records]


def joined(keys: Sequence[str]) -> dict[int, int]:
    """Rows that are equal to an earlier one, with that one's index.

    >>> joined(["a", "b", "a"])
    {2: 0}
    """
    first: dict[str, int] = {}
    return {n: first[key] for n, key in enumerate(keys) if first.setdefault(key, n) != n}
