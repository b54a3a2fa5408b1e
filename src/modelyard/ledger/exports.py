"""Events for billing: settled records of the journal, each in the form that a receiver takes.

The forms are as documented by CloudEvents (JSON Event Format 1.0.2,
github.com/cloudevents/spec), OpenMeter (openmeter.io/docs/concepts/usage-events), Lago
(getlago.com/docs/api-reference/events/usage) and Stripe (docs.stripe.com/api/billing/meter-event).
A record's id is in each event what the receiver knows a repetition by.
"""

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from sqlalchemy import Engine, RowMapping, Select, func, select, text

from modelyard.core.errors import LedgerAway, SettingInvalid
from modelyard.ledger import journal, schema
from modelyard.ledger.database import POSTGRESQL, reading, snapshot
from modelyard.ledger.limits import USED
from modelyard.ledger.usage import Period

SOURCE, TYPE, CODE = "urn:modelyard:ledger", "modelyard.request", "modelyard_usage"
AT_ONCE_ROWS = 10_000
WAIT_SECONDS, LOOK_SECONDS = 10, 0.01
WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE granted AND mode = 'RowExclusiveLock' AND "
    "relation = CAST('records' AS regclass) AND "
    "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
Event = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Records after a number, maybe of a period or an organisation alone."""

    after: int = 0
    period: Period | None = None
    organisation_id: str | None = None


@dataclass(frozen=True)
class Exported:
    """How many records made how many events, and the number of the last record."""

    records: int
    events: int
    last: int


def write(
    engine: Engine,
    form: str,
    wanted: Wanted,
    out: TextIO,
    customers: Mapping[str, str] | None = None,
) -> Exported:
    """Write events in one of FORMS, one JSON object a line, in the order of their numbers.

    `customers` are the ids that the receiver knows organisations by; their own where none are
    given. Who goes on after the last number later gets all records that are not here, each once.
    Raises SettingInvalid where an organisation lacks an id, or records have been moved to files.
    """
    made, records, events, last = FORMS[form], 0, 0, wanted.after
    with closing(_rows(engine, wanted)) as rows:
        for row in rows:
            for event in made(row, _customer(row, customers)):
                out.write(json.dumps(event, separators=(",", ":")) + "\n")
                events += 1
            records, last = records + 1, row["number"]
    return Exported(records, events, last)


def _rows(engine: Engine, wanted: Wanted) -> Generator[RowMapping]:
    """The records, read as they are needed, all as they are at one moment."""
    highest = _last_number(engine)
    start_ms = wanted.period.start_s * 1000 if wanted.period else None
    with snapshot(engine) as connection:
        journal.refuse_moved(connection, wanted.after, start_ms)
        options = {"yield_per": AT_ONCE_ROWS}
        with connection.execute(_query(wanted, highest), execution_options=options) as found:
            yield from found.mappings()


def _query(wanted: Wanted, highest: int) -> Select[Any]:
    records = schema.records.c
    query = select(schema.records).where(
        records.outcome == "answered", records.number > wanted.after, records.number <= highest
    )
    if wanted.period:
        at_ms = (
            records.at_ms + 0
        )  # not by the index of times: what it finds would have to be sorted
        start_ms, end_ms = wanted.period.start_s * 1000, wanted.period.end_s * 1000
        query = query.where(at_ms >= start_ms, at_ms < end_ms)
    if wanted.organisation_id:
        query = query.where(records.organisation_id == wanted.organisation_id)
    return query.order_by(records.number)


def _last_number(engine: Engine) -> int:
    """The highest number of a record, once no lower one can appear any more.

    PostgreSQL gives numbers before it commits, so a lower one may still be on its way: those who
    are writing are waited for, and nobody waits for us. Raises LedgerAway where one takes long.
    """
    ends = time.monotonic() + WAIT_SECONDS
    with reading(engine) as connection:
        highest = connection.execute(select(func.max(schema.records.c.number))).scalar() or 0
        if engine.dialect.name != POSTGRESQL:
            return highest
        writers = set(connection.execute(WRITERS).scalars())
        while writers:
            if time.monotonic() > ends:
                raise LedgerAway(
                    f"Something has been writing into the ledger for {WAIT_SECONDS} s, and its "
                    "records would be missing; export again once it is done."
                )
            time.sleep(LOOK_SECONDS)
            writers &= set(connection.execute(WRITERS).scalars())
    return highest


def _customer(row: RowMapping, customers: Mapping[str, str] | None) -> str:
    own = str(row["organisation_id"])
    if customers is None:
        return own
    if own not in customers:
        raise SettingInvalid(
            f"The organisation {own} has no id among those given; add it, and export again."
        )
    return customers[own]


def _cloudevent(row: RowMapping, customer: str) -> list[Event]:
    about = ("number", "organisation_id", "project_id", "key_id", "release", "version", "route")
    times = ("latency_us", "queue_us")
    data = {name: row[name] for name in (*about, *USED, *times)}
    return [_envelope(row, customer, data)]


def _openmeter(row: RowMapping, customer: str) -> list[Event]:
    about = ("project_id", "key_id", "release", "version")
    return [_envelope(row, customer, {name: row[name] for name in (*USED, *about)})]


def _envelope(row: RowMapping, customer: str, data: Event) -> Event:
    at = datetime.fromtimestamp(row["at_ms"] / 1000, UTC)
    return {
        "specversion": "1.0",
        "id": row["id"],
        "source": SOURCE,
        "type": TYPE,
        "subject": customer,
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }


def _lago(row: RowMapping, customer: str) -> list[Event]:
    event = {
        "transaction_id": row["id"],
        "external_subscription_id": customer,
        "code": CODE,
        "timestamp": f"{row['at_ms'] // 1000}.{row['at_ms'] % 1000:03d}",
        "properties": {name: row[name] for name in (*USED, "release", "version")},
    }
    return [{"event": event}]


def _stripe(row: RowMapping, customer: str) -> list[Event]:
    """An event for each measure, as a meter of Stripe's takes one value."""
    return [
        {
            "event_name": f"modelyard_{name}",
            "identifier": f"{row['id']}-{name}",
            "timestamp": row["at_ms"] // 1000,
            "payload": {"stripe_customer_id": customer, "value": str(row[name])},
        }
        for name in USED
        if row[name]
    ]


FORMS: dict[str, Callable[[RowMapping, str], list[Event]]] = {
    "cloudevents": _cloudevent,
    "openmeter": _openmeter,
    "lago": _lago,
    "stripe": _stripe,
}
