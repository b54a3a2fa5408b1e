"""Unlabelled rows: more that a trained network can tell a smaller one its answers to.

A teacher needs no labels, so rows that nobody has answered teach as well as training rows do, and
there are often many more of them (Hinton, G. et al. 2015, section 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modelyard import inputs
from modelyard.core import digest
from modelyard.core.artefacts import Dataset, ModelSpec
from modelyard.core.errors import RowsEmpty, RowsMissing, SettingInvalid
from modelyard.core.events import Events, Noted
from modelyard.core.project import Project
from modelyard.core.rungs import AUTO, RungName
from modelyard.data.files import Record, open_filled
from modelyard.data.row_keys import row_key
from modelyard.data.source import columns_of, lines_in, require
from modelyard.runtime.columns import Columns, is_missing
from modelyard.runtime.encoded import Encoded

HELD = ("validation", "test")
GLANCED_ROWS = 1000
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Unlabelled:
    """The rows, encoded, and what each is known again by."""

    encoded: Encoded
    digests: NDArray[np.uint64]


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


def refuse_unlabelled(project: Project) -> None:
    """Raise now what is wrong with the file as far as its first rows show it."""
    if file := unlabelled_file(project):
        first = list(islice(open_filled(file, project.data.encoding).records, GLANCED_ROWS))
        _require(project, first, file)


def unlabelled_cause(project: Project) -> str | None:
    """What the rows are: the file's bytes and how they are read."""
    file = unlabelled_file(project)
    if file is None:
        return None
    return digest.of_json([digest.of_file(file), project.data.encoding])


def unlabelled_count(project: Project) -> int:
    """About how many rows there are, for what teaching is thought to need."""
    file = unlabelled_file(project)
    if file is None:
        return 0
    is_parquet = file.suffix.lower() == ".parquet"
    return int(pq.read_metadata(file).num_rows) if is_parquet else lines_in(file)


def unlabelled_rows(
    project: Project, dataset: Dataset, spec: ModelSpec, columns: Columns, events: Events
) -> Unlabelled | None:
    """The project's unlabelled rows; those with a problem, or held for a check, are left out."""
    file = unlabelled_file(project)
    if file is None:
        return None
    records = list(open_filled(file, project.data.encoding).records)
    _require(project, records, file)
    rows = list(_fit(project, records, columns, _held(project, dataset)))
    if not rows:
        raise RowsEmpty(
            f"{file} has no row that could teach: each has a problem, or is among the rows that "
            "are held for checks; add other rows, or take compress.unlabelled out."
        )
    events(Noted(_said(file, len(rows), len(records) - len(rows))))
    values = {name: [row[name] for row in rows] for name in columns.names}
    places = range(-len(rows), 0)  # no row of the source has such a number
    return Unlabelled(columns.encode(values), inputs.row_digests(spec.inputs, values, places))


def _require(project: Project, records: Sequence[Record], file: Path) -> None:
    """Raise ColumnMissing where the readable records have none of a column."""
    if known := columns_of(record for record in records if not record.problem):
        require(known, project.inputs, str(file))


def _fit(
    project: Project, records: Sequence[Record], columns: Columns, held: set[str]
) -> Iterator[Row]:
    """The rows that can be read and are held for no check."""
    kinds = {name: inputs.find(column.kind) for name, column in project.inputs.items()}
    most = project.data.max_characters
    for record in records:
        given = {name: record.values.get(name) for name in kinds}
        row = {
            name: None if is_missing(value) else kinds[name].read(value, project.folder)
            for name, value in given.items()
        }
        too_long = any(isinstance(each, str) and len(each) > most for each in row.values())
        if record.problem or too_long or columns.problem(row) or row_key(kinds, row) in held:
            continue
        yield row


def _held(project: Project, dataset: Dataset) -> set[str]:
    """What the rows that check what has been learned are known by."""
    kinds = {name: inputs.find(column.kind) for name, column in project.inputs.items()}
    tables = [pq.read_table(dataset.part(part), columns=list(kinds)) for part in HELD]
    found = (row_key(kinds, row) for table in tables for row in table.to_pylist())
    return {key for key in found if key is not None}


def _said(file: Path, count: int, passed: int) -> str:
    told = f"{count:,} unlabelled rows of {file.name} teach smaller networks too"
    return f"{told}; {passed:,} others cannot be read or are held for checks" if passed else told
