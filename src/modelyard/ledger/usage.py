"""Usage: what customers have used, read from roll-ups; and the check that these are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, delete, func, insert, select

from modelyard.ledger import journal, schema
from modelyard.ledger.customers import EVERYBODY, Scope
from modelyard.ledger.database import hold_still, reading, snapshot, writing
from modelyard.ledger.entries import HOUR_MS
from modelyard.ledger.limits import USED
from modelyard.ledger.periods import Period as Period

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = ("organisation_id", "hour_s", "project_id", "key_id", "release", "version")


def used(
    engine: Engine, period: Period, by: Sequence[str] = ("release",), scope: Scope = EVERYBODY
) -> list[dict[str, Any]]:
    """What was used in a period, by some columns of BY."""
    rollups = schema.rollups.c
    names = [rollups[name] for name in by]
    sums = [func.coalesce(func.sum(rollups[name]), 0).label(name) for name in USED]
    query = select(*names, *sums).where(
        rollups.hour_s >= period.start_s, rollups.hour_s < period.end_s
    )
    if scope.organisation_id is not None:
        query = query.where(rollups.organisation_id == scope.organisation_id)
    if scope.project_id is not None:
        query = query.where(rollups.project_id == scope.project_id)
    with reading(engine) as connection:
        rows = connection.execute(query.group_by(*names).order_by(*names)).mappings().all()
    return [{**row, **{name: int(row[name]) for name in USED}} for row in rows if row["requests"]]


@dataclass(frozen=True)
class Difference:
    """An hour of a key and a release whose roll-up is not what its records come to."""

    place: dict[str, Any]
    records: dict[str, int]
    rollup: dict[str, int]


def differences(engine: Engine, folder: Path | None = None) -> list[Difference]:
    """Where roll-ups differ from the records; none is how it must be.

    `folder` is where older records have been moved to; raises SettingInvalid where some of those
    are not there.
    """
    with snapshot(engine) as connection:
        summed, held = _summed(connection, folder), _held(connection)
    nothing = dict.fromkeys(USED, 0)
    return [
        Difference(dict(zip(PLACE, place, strict=True)), *pair)
        for place in sorted(summed.keys() | held.keys())
        if (pair := (summed.get(place, nothing), held.get(place, nothing)))[0] != pair[1]
    ]


def rebuild(engine: Engine, folder: Path | None = None) -> int:
    """Add all records up anew, those in a folder too; the number of roll-ups.

    Raises SettingInvalid where some of those that were moved to a folder are not there.
    """
    with writing(engine) as connection:
        hold_still(connection, schema.records, schema.rollups)
        summed = _summed(connection, folder)
        connection.execute(delete(schema.rollups))
        rows = [dict(zip(PLACE, place, strict=True)) | sums for place, sums in summed.items()]
        if rows:
            connection.execute(insert(schema.rollups), rows)
    return len(rows)


Sums = dict[tuple[Any, ...], dict[str, int]]


def _summed(connection: Connection, folder: Path | None) -> Sums:
    """What the records of each place come to, those in the table and those in files."""
    records = schema.records.c
    hour_s = (records.at_ms // HOUR_MS * 3600).label("hour_s")
    place = [hour_s if name == "hour_s" else records[name] for name in PLACE]
    sums = [func.sum(records[name]).label(name) for name in USED]
    query = select(*place, *sums).where(records.requests > 0).group_by(*place)
    summed = _by_place(connection.execute(query).mappings().all())
    for part in journal.moved(connection, folder):
        for place_of, own in _by_place(_rolled_up(part)).items():
            before = summed.get(place_of)
            summed[place_of] = {n: own[n] + before[n] for n in USED} if before else own
    return summed


def _rolled_up(part: "pa.Table") -> list[dict[str, Any]]:
    """What the records of a file come to."""
    import pyarrow.compute as pc

    counted = part.filter(pc.greater(part["requests"], 0))
    hour_s = pc.multiply(pc.divide(counted["at_ms"], HOUR_MS), 3600)
    grouped = counted.append_column("hour_s", hour_s).group_by(list(PLACE))
    sums = grouped.aggregate([(name, "sum") for name in USED])
    return [
        {name.removesuffix("_sum"): value for name, value in row.items()}
        for row in sums.to_pylist()
    ]


def _held(connection: Connection) -> Sums:
    return _by_place(connection.execute(select(schema.rollups)).mappings().all())


def _by_place(rows: Sequence[Any]) -> Sums:
    return {
        tuple(row[name] for name in PLACE): {name: int(row[name]) for name in USED} for row in rows
    }
