"""Backups: all that the ledger has at one moment, in one file, which either database takes back.

The file is a zip of parts in Parquet, and of `manifest.json`, which says of which revision the
tables are, and of each part how many rows it has and its SHA-256. Left out is what only processes
that run have: workers, what they hold, and claims to answer that are not answered yet.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Select,
    Table,
    column,
    func,
    insert,
    literal,
    select,
    table,
    text,
)

from modelyard.core.errors import BackupUnusable, SettingInvalid
from modelyard.ledger import schema
from modelyard.ledger.database import (
    POSTGRESQL,
    now_ms,
    reading,
    snapshot,
    tables,
    version,
    writing,
)
from modelyard.ledger.files import COMPRESSION, drafted, parts, schema_of
from modelyard.ledger.revisions import known, move

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
LEFT_OUT = ("workers", "holds")
PART_ROWS = 20_000
LARGE_ROWS = 100
"""Rows of a part of `answers`: each may have a megabyte."""


class Part(BaseModel):
    """A part of a table: its place in the file, its rows, and the SHA-256 of its bytes."""

    name: str
    rows: int
    sha256: str


class Manifest(BaseModel):
    """What a backup has: the revision of its tables, and their parts, in the order to take them."""

    form: Literal[1] = 1
    revision: str
    at_ms: int
    tables: dict[str, list[Part]]

    @property
    def rows(self) -> int:
        """Those of all tables."""
        return sum(part.rows for own in self.tables.values() for part in own)


def back_up(engine: Engine, path: Path) -> Manifest:
    """Write a backup of one moment, while others go on writing into the ledger; what it has.

    The file appears whole or not at all, for its owner alone. Raises SettingInvalid.
    """
    with drafted(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        with snapshot(engine) as connection:
            manifest = Manifest(revision=_revision(connection), at_ms=now_ms(), tables={})
            for own in _tables(connection):
                manifest.tables[own.name] = list(_write(archive, connection, own))
        archive.writestr(MANIFEST, manifest.model_dump_json(indent=2))
    return manifest


def restore(engine: Engine, path: Path) -> Manifest:
    """Fill an empty database with a backup, whole or not at all; what it has.

    Tables of an older revision are brought to the latest. Raises BackupUnusable, and SettingInvalid
    where the database has anything.
    """
    with _opened(path) as archive:
        manifest = _manifest(archive, path)
        for part in (part for own in manifest.tables.values() for part in own):
            _read(archive, part, path)
        _refuse_used(engine)
        move(engine, manifest.revision)
        with writing(engine) as connection:
            for name, own in manifest.tables.items():
                for part in own:
                    _load(connection, name, _read(archive, part, path))
                _check_count(connection, name, own, path)
            _continue_numbers(connection)
    move(engine)
    return manifest


def _revision(connection: Connection) -> str:
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are here, also of an older revision; first those others refer to."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in schema.TABLES.tables)
    return [own for own in found.sorted_tables if own.name not in LEFT_OUT]


def _write(archive: zipfile.ZipFile, connection: Connection, own: Table) -> Iterator[Part]:
    import pyarrow.parquet as pq

    query: Select[tuple[object, ...]] = select(own).order_by(*own.primary_key)
    if own.name == schema.answers.name:
        query = query.where(own.c.status.is_not(None))
    most_rows = LARGE_ROWS if own.name == schema.answers.name else PART_ROWS
    for number, part in enumerate(parts(connection, query, schema_of(own), most_rows)):
        sink = io.BytesIO()
        pq.write_table(part, sink, compression=COMPRESSION)
        name, content = f"{own.name}/{number:06d}.parquet", sink.getvalue()
        archive.writestr(name, content)
        yield Part(name=name, rows=part.num_rows, sha256=hashlib.sha256(content).hexdigest())


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The file; raises BackupUnusable where it is none, or is cut off or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BackupUnusable(
            f"{path} is no backup, or only a part of one ({error}); take another backup."
        ) from None


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
    except (KeyError, ValidationError):
        raise BackupUnusable(
            f"{path} has no {MANIFEST} that this Modelyard reads; take a file that "
            "`modelyard ledger backup` has written."
        ) from None
    if manifest.revision not in known() or manifest.tables.keys() - schema.TABLES.tables.keys():
        raise BackupUnusable(
            f"{path} is of revision {manifest.revision}, which this Modelyard does not know; "
            "restore it with the version that has written it, or a later one."
        )
    return manifest


def _read(archive: zipfile.ZipFile, part: Part, path: Path) -> "pa.Table":
    import pyarrow.parquet as pq

    content = archive.read(part.name) if part.name in archive.namelist() else b""
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise BackupUnusable(
            f"{path} is damaged: {part.name} is not what its manifest says; take another backup."
        )
    return pq.read_table(io.BytesIO(content))


def _refuse_used(engine: Engine) -> None:
    """Raise SettingInvalid unless nothing would be overwritten."""
    found = tables(engine) & schema.TABLES.tables.keys()
    with reading(engine) as connection:
        for name in sorted(found):
            anything = select(literal(1)).select_from(table(name)).limit(1)
            if connection.execute(anything).first():
                raise SettingInvalid(
                    f"The database has rows in the table {name}, and a backup goes into an empty "
                    "database only; name another with --database."
                )
    if (revision := version(engine)) and revision not in known():
        raise SettingInvalid(
            f"The database's tables are of revision {revision}, which this Modelyard does not "
            "know; name an empty database with --database."
        )


def _load(connection: Connection, name: str, part: "pa.Table") -> None:
    own = table(name, *map(column, part.column_names))
    if part.num_rows:
        connection.execute(insert(own), part.to_pylist())


def _check_count(connection: Connection, name: str, own: list[Part], path: Path) -> None:
    meant = sum(part.rows for part in own)
    found = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
    if found != meant:
        raise BackupUnusable(
            f"{path} should have {meant:,} rows of {name}, and {found:,} were found in the "
            "database; see that nobody else writes there, or take another backup."
        )


def _continue_numbers(connection: Connection) -> None:
    """Have PostgreSQL number new rows after those that came with their numbers."""
    if connection.dialect.name != POSTGRESQL:
        return  # the other goes on after the highest by itself
    for own in schema.TABLES.sorted_tables:
        numbered = own.autoincrement_column
        if numbered is None:
            continue
        sequence = func.pg_get_serial_sequence(own.name, numbered.name)
        highest = select(func.max(numbered)).scalar_subquery()
        connection.execute(select(func.setval(sequence, highest)).where(highest.is_not(None)))
