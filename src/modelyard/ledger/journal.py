"""The journal's older days as files of Parquet, beside the table with the newer ones.

    FOLDER/lock                                                       held while one compacts
    FOLDER/records/day=2026-11-03/000000000001-000000100000.parquet   its lowest and highest number

A file is written, synced, read again and renamed; then its records leave the table, in one
transaction, which also counts them in the table `state`. A kill in between leaves records in both:
whoever reads takes them once, and the next to compact has them leave. The record with the highest
number stays in the table, as SQLite would give its number to another.
"""

import errno
import fcntl
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
)

from modelyard.core.errors import RowsUnreadable, SettingInvalid
from modelyard.ledger import schema
from modelyard.ledger.database import inserting, now_ms, reading, snapshot, writing
from modelyard.ledger.entries import HOUR_MS
from modelyard.ledger.files import COMPRESSION, drafted, make_folder, part_of, schema_of
from modelyard.ledger.limits import PERIODS, Limit, Period

if TYPE_CHECKING:
    import pyarrow as pa

NAME = re.compile(r"(\d+)-(\d+)")
FILE_ROWS = 100_000
"""Records of a file, and so of a transaction that deletes them."""
AT_ONCE_ROWS = 10_000
DAY_MS = 86_400_000
MARGIN_S = 3600
"""No request takes so long that it would settle in a period that ended before."""
LONGEST_S = 31 * 86_400
MOVED, MOVED_NUMBER, MOVED_MS = "moved_records", "moved_number", "moved_ms"
"""How many records are in files, the highest of their numbers, and the end of their last day."""


COLUMNS = tuple(schema.records.columns.keys())


@dataclass(frozen=True)
class Compacted:
    """What has left the database: records into how many files, and what was deleted."""

    records: int
    files: int
    answers: int
    counters: int
    holds: int
    contents: int


def compact(
    engine: Engine, folder: Path, keep_days: int = 35, answers_hours: int = 24
) -> Compacted:
    """Move whole days (UTC) of records into a folder, and delete what nobody will ask for.

    Raises SettingInvalid where another process compacts into the folder, or it is another ledger's.
    """
    now = now_ms()
    with _locked(folder):
        records, files = _move_days(engine, folder, (now // DAY_MS - keep_days) * DAY_MS)
    answers, holds = schema.answers.c, schema.holds.c
    old = answers.status.is_not(None) & (answers.at_ms < now - answers_hours * HOUR_MS)
    return Compacted(
        records,
        files,
        _purged(engine, schema.answers, old),
        _purged(engine, schema.counters, _has_passed(now / 1000)),
        _purged(engine, schema.holds, holds.amount == 0),
        _purged(engine, schema.contents, schema.contents.c.until_ms <= now),
    )


def moved(connection: Connection, folder: Path | None) -> Iterator["pa.Table"]:
    """The records that are in files alone, a file at a time.

    Raises SettingInvalid at the end where they are not as many as have left the table.
    """
    found = 0
    lowest = connection.execute(select(func.min(schema.records.c.number))).scalar()
    for path in files_in(folder) if folder else ():
        part = _without_those_in_table(connection, path, lowest)
        found += part.num_rows
        yield part
    if found != (known := _state(connection, MOVED)):
        raise SettingInvalid(
            f"{known:,} records have been moved out of the database into files, and "
            f"{found:,} of such were found; give the folder that has all of them as --folder."
        )


def refuse_moved(connection: Connection, after: int, start_ms: int | None) -> None:
    """Refuse to read on after a number, from a moment on, where files have some of it.

    Raises SettingInvalid.
    """
    number, end_ms = _state(connection, MOVED_NUMBER), _state(connection, MOVED_MS)
    if after < number and (start_ms is None or start_ms < end_ms):
        raise SettingInvalid(
            f"Records before {_day(end_ms)} (UTC) have been moved out of the database into files, "
            f"which are not read here; ask for a later month, or for those after number {number}."
        )


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, by day; raises SettingInvalid where it is not there."""
    if not folder.is_dir():
        raise SettingInvalid(f"There is no folder {folder}; give the one that has the records.")
    found = folder.glob("records/day=*/*.parquet")
    return sorted(path for path in found if NAME.fullmatch(path.stem))


def _move_days(engine: Engine, folder: Path, before_ms: int) -> tuple[int, int]:
    """Move all days before a moment; how many records, and into how many files."""
    for draft in folder.glob("records/day=*/.*.draft"):  # of one that was killed
        draft.unlink()
    with reading(engine) as connection:
        lowest = connection.execute(select(func.min(schema.records.c.number))).scalar()
    standing = files_in(folder)
    records = sum(_leave_table(engine, path) for path in standing if _reaches(path, lowest))
    while part := _oldest(engine, before_ms):
        path = _written(folder, part)
        try:
            records += _leave_table(engine, path, is_new=True)
        except SettingInvalid:
            path.unlink()
            raise
    return records, len(files_in(folder)) - len(standing)


def _oldest(engine: Engine, before_ms: int) -> "pa.Table | None":
    """Records of the oldest day before a moment, as many as go into a file; None at the end."""
    records = schema.records.c
    with snapshot(engine) as connection:
        highest = connection.execute(select(func.max(records.number))).scalar() or 0
        movable = (records.number < highest) & (records.at_ms < before_ms)
        first_ms = connection.execute(select(func.min(records.at_ms)).where(movable)).scalar()
        if first_ms is None:
            return None
        day_ends = (first_ms // DAY_MS + 1) * DAY_MS
        query = select(schema.records).where(movable, records.at_ms < day_ends)
        query = query.order_by(records.at_ms, records.number).limit(FILE_ROWS)
        return part_of(connection.execute(query).all(), schema_of(schema.records))


def _written(folder: Path, part: "pa.Table") -> Path:
    """Write a file, and see that it reads as it was meant."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ends = pc.min_max(part["number"]).as_py()
    day = folder / "records" / f"day={_day(part['at_ms'][0].as_py())}"
    path = day / f"{ends['min']:012d}-{ends['max']:012d}.parquet"
    make_folder(day)
    with drafted(path) as draft:
        pq.write_table(part, draft, compression=COMPRESSION)
        if not _read(draft).equals(part):
            raise OSError(errno.EIO, "what was written reads otherwise", str(draft))
    return path


def _leave_table(engine: Engine, path: Path, is_new: bool = False) -> int:
    """Delete the records of a file from the table; how many there were.

    Raises SettingInvalid where the database has others by their numbers.
    """
    part = _read(path, ["number", "id", "at_ms"])
    ids = list(zip(part["number"].to_pylist(), part["id"].to_pylist(), strict=True))
    with writing(engine) as connection:
        deleted = 0
        for start in range(0, len(ids), AT_ONCE_ROWS):
            deleted += _deleted(connection, dict(ids[start : start + AT_ONCE_ROWS]), path)
        if is_new and deleted != len(ids):
            raise SettingInvalid(
                f"Another process has moved records of {path.stem} meanwhile, into another folder; "
                "let one process at a time compact, and always into the same folder."
            )
        if deleted:
            end_ms = (part["at_ms"][0].as_py() // DAY_MS + 1) * DAY_MS
            _note(engine, connection, deleted, max(ids)[0], end_ms)
    return deleted


def _deleted(connection: Connection, ids: Mapping[int, str], path: Path) -> int:
    """Delete records by number; how many there were. Raises SettingInvalid for other ids."""
    records = schema.records.c
    these = records.number.in_(list(ids))
    for number, name in connection.execute(select(records.number, records.id).where(these)):
        if ids[number] != name:
            raise SettingInvalid(
                f"{path} has another record {number} than the database, so the folder is another "
                "ledger's; give this one a folder of its own."
            )
    return connection.execute(delete(schema.records).where(these)).rowcount


def _note(engine: Engine, connection: Connection, records: int, number: int, end_ms: int) -> None:
    """Say in the table `state` what has been moved."""
    for name, value in ((MOVED, records), (MOVED_NUMBER, number), (MOVED_MS, end_ms)):
        placed = inserting(engine, schema.state).values(name=name, number=value)
        old, new = schema.state.c.number, placed.excluded.number
        later = old + new if name == MOVED else case((new > old, new), else_=old)
        connection.execute(
            placed.on_conflict_do_update(index_elements=["name"], set_={"number": later})
        )


def _state(connection: Connection, name: str) -> int:
    query = select(schema.state.c.number).where(schema.state.c.name == name)
    return connection.execute(query).scalar() or 0


def _without_those_in_table(connection: Connection, path: Path, lowest: int | None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    part = _read(path)
    if not _reaches(path, lowest):
        return part
    number = schema.records.c.number
    query = select(number).where(number.between(*_ends(path)))
    both = pa.array(connection.execute(query).scalars().all(), pa.int64())
    return part.filter(pc.invert(pc.is_in(part["number"], both)))


def _reaches(path: Path, lowest: int | None) -> bool:
    """Whether records of a file may be in a table with this lowest number."""
    return lowest is not None and _ends(path)[1] >= lowest


def _ends(path: Path) -> tuple[int, int]:
    lowest, _, highest = path.stem.partition("-")
    return int(lowest), int(highest)


def _read(path: Path, columns: Sequence[str] = COLUMNS) -> "pa.Table":
    """Columns of a file; raises RowsUnreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # read_table would add the day as a column
            part = file.read(list(columns))
        return part.select(columns)
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise RowsUnreadable(
            f"{path} is no file of records, or a damaged one ({error}); put it back from a copy."
        ) from None


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()


def _has_passed(now_s: float) -> ColumnElement[bool]:
    """The condition that a counter's period is over; of limits that are gone, any would be."""
    counters, limits = schema.counters.c, schema.limits.c
    gone = counters.limit_id.not_in(select(limits.id))
    over = [gone & (counters.window_s > 0) & (counters.window_s < now_s - LONGEST_S - MARGIN_S)]
    for period in PERIODS:
        own = select(limits.id).where(limits.period == period)
        begins = _window_s(period, now_s - MARGIN_S)
        over.append(counters.limit_id.in_(own) & (counters.window_s < begins))
    return or_(*over)


def _window_s(period: Period, now_s: float) -> int:
    return Limit(0, "", "", "rows", period, 0).window_s(now_s)


def _purged(engine: Engine, table: Table, stale: ColumnElement[bool]) -> int:
    """Delete what is stale, some at once so that nobody waits long; how many there were."""
    key = tuple_(*table.primary_key)
    some = select(*table.primary_key).where(stale).limit(AT_ONCE_ROWS)
    own = delete(table).where(key.in_(some), stale)  # once more: a row may have changed meanwhile
    total = 0
    while True:
        with writing(engine) as connection:
            deleted = connection.execute(own).rowcount
        total += deleted
        if deleted < AT_ONCE_ROWS:
            return total


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(folder / "records")
    with (folder / "lock").open("w") as lock:  # the kernel lets go of it when the process dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingInvalid(
                f"Another process compacts into {folder}; wait until it is done."
            ) from None
        yield
