"""Unlabelled rows: more that a trained network can tell a smaller one its answers to.

A teacher needs no labels, so rows that nobody has answered teach as well as training rows do, and
there are often many more of them (Hinton, G. et al. 2015, section 3).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from modelyard import inputs
from modelyard.core.artefacts import Dataset
from modelyard.core.errors import RowsEmpty, RowsMissing, SettingInvalid
from modelyard.core.events import Events, Noted
from modelyard.core.project import Project
from modelyard.core.rungs import AUTO, RungName
from modelyard.data.files import Opened, open_filled
from modelyard.data.source import columns_of, require
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded

HELD = ("validation", "test")
Row = Mapping[str, Any]


def unlabelled_file(project: Project) -> Path | None:
    """The file of unlabelled rows, if the project has one.

    Raises RowsMissing where it is not there, and SettingInvalid where nothing could learn from it.
    """
    named = project.compress.unlabelled
    if named is None:
        return None
    target = project.compress.target
    if target != AUTO and not RungName.read(target).ways:
        raise SettingInvalid(
            f"compress.unlabelled is {named!r}, and compress.target = {target!r} teaches no "
            "smaller network that could learn from it; take the key out, or choose auto or a rung "
            "such as layers-3+int8."
        )
    if by_file := [n for n, own in project.inputs.items() if inputs.find(own.kind).is_file]:
        raise SettingInvalid(
            f"compress.unlabelled is {named!r}, and the column {by_file[0]!r} holds files, which "
            "are not read from unlabelled rows; take the key out."
        )
    file = project.folder / named
    if not file.is_file():
        raise RowsMissing(
            f"There is no file {file}; check compress.unlabelled, relative to the project."
        )
    return file


def unlabelled_rows(
    project: Project, dataset: Dataset, columns: Columns, events: Events
) -> Encoded | None:
    """The project's unlabelled rows; those with a problem, or held for a check, are left out."""
    file = unlabelled_file(project)
    if file is None:
        return None
    held = _held(dataset, columns)
    found, passed = [], 0
    for row in _rows(open_filled(file, project.data.encoding), columns, file):
        if row is None or _key(row, columns) in held:
            passed += 1
        else:
            found.append(row)
    if not found:
        raise RowsEmpty(
            f"{file} has no row that could teach: each has a problem, or is among the rows that "
            "are held for checks; add other rows, or take compress.unlabelled out."
        )
    events(Noted(_said(file, len(found), passed)))
    return columns.encode(columns.values(found))


def _rows(opened: Opened, columns: Columns, file: Path) -> Iterator[Row | None]:
    """What each record has of the columns; None where it cannot be read."""
    for number, record in enumerate(opened.records):
        if number == 0 and not record.problem:
            require(columns_of([record]), columns.names, str(file))
        row = {name: record.values.get(name) for name in columns.names}
        yield None if record.problem or columns.problem(row) else row


def _held(dataset: Dataset, columns: Columns) -> set[tuple[str, ...]]:
    """The rows that check what has been learned."""
    tables = [pq.read_table(dataset.part(part), columns=columns.names) for part in HELD]
    return {_key(row, columns) for table in tables for row in table.to_pylist()}


def _key(row: Row, columns: Columns) -> tuple[str, ...]:
    return tuple(str(row[name]).strip() for name in columns.names)


def _said(file: Path, count: int, passed: int) -> str:
    told = f"{count:,} unlabelled rows of {file.name} teach smaller networks too"
    return f"{told}; {passed:,} others cannot be read or are held for checks" if passed else told
