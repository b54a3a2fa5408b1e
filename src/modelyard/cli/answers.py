"""Answers for the rows of a file: each row with its answer, or with why it has none."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.data.files import Record
    from modelyard.runtime.runtime import Runtime

ERROR = "error"


def readable(
    runtime: "Runtime", records: "list[Record]", counted_in: str, beside: Path = Path()
) -> list[dict[str, Any]]:
    """The rows that can be answered, of all that `answer` would take."""
    asked = _read(runtime, records, beside)
    return _without(asked, _problems(runtime, asked, counted_in))


def _without(records: "list[Record]", problems: "Iterable[str | None]") -> list[dict[str, Any]]:
    return [r.values for r, problem in zip(records, problems, strict=True) if problem is None]


def answer(
    runtime: "Runtime",
    records: "list[Record]",
    counted_in: str,
    beside: Path = Path(),
    is_first: bool = True,
) -> Iterator[dict[str, Any]]:
    """Each row with its answer; a row that cannot be answered says why and harms no other.

    Paths in the rows start from `beside` where they are relative. A column of the row that is
    named like one of the answer's comes out as `given_` and its name.
    Raises ColumnMissing where rows can be read and none has the release's input column, if they are
    the first of their file: later ones are only rows without it.
    """
    asked = _read(runtime, records, beside)
    problems = list(_problems(runtime, asked, counted_in, is_first))
    answers = iter(runtime.predict(_without(asked, problems)))
    empty = _empty(runtime.answer_fields)
    for record, problem in zip(records, problems, strict=True):
        found = next(answers) if problem is None else {}
        yield {**_own(record, empty), **empty, **found, ERROR: problem}


def columns_of(records: "Iterable[Record]", answer_fields: Iterable[str]) -> list[str]:
    """The columns of what `answer` gives for these records."""
    empty = _empty(answer_fields)
    return list(dict.fromkeys(n for each in records for n in {**_own(each, empty), **empty}))


def _empty(answer_fields: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys((*answer_fields, ERROR))


def _read(runtime: "Runtime", records: "list[Record]", beside: Path) -> "list[Record]":
    """Rows of which values that are the paths of files are those files."""
    from modelyard import inputs

    kinds = {each.column: inputs.find(each.kind) for each in runtime.spec.inputs}
    files = {name: kind for name, kind in kinds.items() if kind.is_file}
    if not files:
        return records
    found = []
    for record in records:
        own = {
            name: kind.read(record.values[name], beside)
            for name, kind in files.items()
            if name in record.values
        }
        found.append(record._replace(values={**record.values, **own}))
    return found


def _problems(
    runtime: "Runtime", records: "list[Record]", counted_in: str, is_first: bool = True
) -> Iterator[str | None]:
    """Why each row has no answer, or None."""
    columns = runtime.columns
    readable = [record.values for record in records if not record.problem]
    known = [name for name in columns.names if not is_first or any(name in row for row in readable)]
    for record in records:
        lacks = [name for name in known if name not in record.values]
        if record.problem:
            yield f"{counted_in} {record.number}: {record.problem}"
        elif lacks:
            yield f"the row lacks the column {lacks[0]!r}"
        else:
            yield runtime.problem(record.values)


def _own(record: "Record", taken: Mapping[str, None]) -> dict[str, Any]:
    """The row's columns, renamed where the answer has one of that name."""
    from modelyard.data.files import UNNAMED

    if not record.problem and taken.keys().isdisjoint(record.values):
        return record.values
    row = record.values
    if record.problem:
        row = {name: value for name, value in row.items() if name not in UNNAMED}
    return dict(zip(_names(tuple(row), tuple(taken)), row.values(), strict=True))


@lru_cache  # most rows of a file have the same columns
def _names(given: tuple[str, ...], taken: tuple[str, ...]) -> tuple[str, ...]:
    kept = []
    for name in given:
        other = name
        while other in taken or (other != name and other in given):
            other = f"given_{other}"
        kept.append(other)
    return tuple(kept)
