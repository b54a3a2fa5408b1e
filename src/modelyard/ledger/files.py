"""Files of the ledger: rows of its tables as Parquet, and files that appear whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Connection, LargeBinary, Select, String, Table

from modelyard.core.errors import SettingInvalid

if TYPE_CHECKING:
    import pyarrow as pa

COMPRESSION = "zstd"


def schema_of(table: Table) -> "pa.Schema":
    """The columns of a table as Parquet has them: texts, bytes, truths, and whole numbers."""
    import pyarrow as pa

    kinds = ((Boolean, pa.bool_()), (LargeBinary, pa.binary()), (String, pa.string()))
    return pa.schema(
        (
            column.name,
            next((kind for sql, kind in kinds if isinstance(column.type, sql)), pa.int64()),
        )
        for column in table.columns
    )


def parts(
    connection: Connection, query: Select[Any], schema: "pa.Schema", most_rows: int
) -> Iterator["pa.Table"]:
    """What a query gives, in parts of so many rows; no more than one is in memory."""
    with connection.execute(query, execution_options={"yield_per": most_rows}) as found:
        for rows in found.partitions():
            yield part_of(rows, schema)


def part_of(rows: Sequence[Sequence[Any]], schema: "pa.Schema") -> "pa.Table":
    """Rows, of which there is one at least, as columns."""
    import pyarrow as pa

    columns = zip(zip(*rows, strict=True), schema, strict=True)
    arrays = [pa.array(values, field.type) for values, field in columns]
    return pa.Table.from_arrays(arrays, schema=schema)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A draft that takes its place at the end of the `with` block, on disk; for its owner alone.

    An error leaves nothing. Raises SettingInvalid where the place is taken.
    """
    if path.exists():
        raise SettingInvalid(f"{path} is there already; choose another name or remove it.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.touch(0o600)
        yield draft
        sync(draft)
        draft.rename(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder with those above it, on disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
