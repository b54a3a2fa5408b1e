"""Usage: what customers have used, read from roll-ups; and the check that these are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select

from modelyard.ledger import schema
from modelyard.ledger.customers import EVERYBODY, Scope
from modelyard.ledger.database import reading, writing
from modelyard.ledger.entries import HOUR_MS
from modelyard.ledger.limits import USED
from modelyard.ledger.periods import Period as Period

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


def differences(engine: Engine) -> list[Difference]:
    """Where roll-ups differ from the records; none is how it must be."""
    with reading(engine) as connection:
        summed, held = _summed(connection), _held(connection)
    nothing = dict.fromkeys(USED, 0)
    return [
        Difference(dict(zip(PLACE, place, strict=True)), *pair)
        for place in sorted(summed.keys() | held.keys())
        if (pair := (summed.get(place, nothing), held.get(place, nothing)))[0] != pair[1]
    ]


def rebuild(engine: Engine) -> None:
    """Add all records up anew."""
    with writing(engine) as connection:
        summed = _summed(connection)
        connection.execute(delete(schema.rollups))
        rows = [dict(zip(PLACE, place, strict=True)) | sums for place, sums in summed.items()]
        if rows:
            connection.execute(insert(schema.rollups), rows)


Sums = dict[tuple[Any, ...], dict[str, int]]


def _summed(connection: Connection) -> Sums:
    """What the records of each place come to."""
    records = schema.records.c
    hour_s = (records.at_ms // HOUR_MS * 3600).label("hour_s")
    place = [hour_s if name == "hour_s" else records[name] for name in PLACE]
    sums = [func.sum(records[name]).label(name) for name in USED]
    query = select(*place, *sums).where(records.requests > 0).group_by(*place)
    return _by_place(connection.execute(query).mappings().all())


def _held(connection: Connection) -> Sums:
    return _by_place(connection.execute(select(schema.rollups)).mappings().all())


def _by_place(rows: Sequence[Any]) -> Sums:
    return {
        tuple(row[name] for name in PLACE): {name: int(row[name]) for name in USED} for row in rows
    }
