"""Entries: what is written into the ledger, and one transaction that takes many of them.

All that several requests reserve and settle at the same moment goes into one transaction (group
commit; DeWitt et al. 1984, Implementation techniques for main memory database systems). Each is
exact: a counter's row is locked while it is looked at, so what is used and what is reserved by all
workers together never passes a hard limit.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, insert, select, tuple_, update

from modelyard.core.errors import LedgerAway, LimitReached, RequestRepeated
from modelyard.ledger import schema
from modelyard.ledger.database import POSTGRESQL, inserting, now_ms
from modelyard.ledger.limits import USED, Limit, Usage

Place = tuple[int, int]
"""A limit and the moment at which its period began."""
HOUR_MS = 3_600_000
BUSY_SECONDS = 1
"""After so long a request that is being answered may be sent again."""


@dataclass(frozen=True)
class Repeat:
    """An idempotency key of a project, and what was asked with it."""

    scope: str
    key: str
    digest: bytes


@dataclass(frozen=True)
class Kept:
    """An answer as it was sent, for a client that asks again."""

    status: int
    head: str
    body: bytes


@dataclass(frozen=True)
class Demand:
    """What a request will use of a limit in the period of now."""

    limit: Limit
    window_s: int
    amount: int
    retry_after_s: int | None

    @property
    def place(self) -> Place:
        """Its counter."""
        return self.limit.id, self.window_s


@dataclass(frozen=True)
class Claim:
    """What a request wants to reserve before it is answered."""

    demands: tuple[Demand, ...]
    repeat: Repeat | None = None


@dataclass(frozen=True)
class Standing:
    """How much of a limit is left after a request."""

    limit: Limit
    left: int


@dataclass(frozen=True)
class Reservation:
    """What is reserved for a request, by the worker that answers it."""

    worker: str
    demands: tuple[Demand, ...] = ()
    repeat: Repeat | None = None
    standings: tuple[Standing, ...] = ()


@dataclass(frozen=True)
class Record:
    """One request, as the journal keeps it."""

    id: str
    at_ms: int
    organisation_id: str
    project_id: str
    key_id: str
    release: str
    version: str
    route: str
    outcome: str
    status: int
    usage: Usage
    latency_us: int
    queue_us: int

    def to_row(self) -> dict[str, Any]:
        """The record as a row of the table."""
        own = {name: value for name, value in vars(self).items() if name != "usage"}
        return own | vars(self.usage)


@dataclass(frozen=True)
class Entry:
    """A request that has been answered, or has ended otherwise: its record, and what is let go."""

    record: Record | None
    reservation: Reservation | None = None
    kept: Kept | None = None

    @property
    def is_answered(self) -> bool:
        """Whether it counts."""
        return self.record is not None and self.record.usage.requests > 0


Operation = Claim | Entry
Result = Reservation | Kept | Exception | None


@dataclass
class Held:
    """What a worker has reserved for the requests it is busy with."""

    worker: str
    amounts: dict[Place, int] = field(default_factory=dict)


class Transaction:
    """Operations of one worker, written together; `results` has one for each."""

    def __init__(self, engine: Engine, held: Held, operations: Sequence[Operation]):
        self._engine = engine
        self._held = held
        self._operations = operations
        self.amounts = dict(held.amounts)
        """What the worker holds once this is committed."""
        self.results: list[Result] = []
        self._used: dict[Place, int] = {}
        self._others: dict[Place, int] = {}

    def write(self, connection: Connection) -> None:
        """Write all; nothing holds before the connection commits."""
        places = sorted({each.place for each in self._demands()})
        if places:
            self._look(connection, places)
        before = dict(self._used)
        repeats = self._repeats(connection)
        self.results = [self._result(each, repeats) for each in self._operations]
        self._write_claims(connection)
        self._write_counters(connection, before)
        self._write_records(connection)

    def _demands(self) -> Iterable[Demand]:
        for each in self._operations:
            own = each if isinstance(each, Claim) else each.reservation
            yield from own.demands if own else ()

    def _look(self, connection: Connection, places: Sequence[Place]) -> None:
        """Lock the counters, and read them and what other workers hold of them."""
        counters, holds = schema.counters, schema.holds
        rows = [{"limit_id": n, "window_s": window, "used": 0} for n, window in places]
        new = inserting(self._engine, counters).on_conflict_do_nothing()
        connection.execute(new, rows)
        within = tuple_(counters.c.limit_id, counters.c.window_s).in_(places)
        query = select(counters).where(within).order_by(counters.c.limit_id, counters.c.window_s)
        if self._engine.dialect.name == POSTGRESQL:
            query = query.with_for_update()
        for limit, window, used in connection.execute(query):
            self._used[limit, window] = used
        held = (
            select(holds.c.limit_id, holds.c.window_s, func.sum(holds.c.amount))
            .where(tuple_(holds.c.limit_id, holds.c.window_s).in_(places))
            .where(holds.c.worker != self._held.worker)
            .group_by(holds.c.limit_id, holds.c.window_s)
        )
        for limit, window, amount in connection.execute(held):
            self._others[limit, window] = int(amount)

    def _repeats(self, connection: Connection) -> Mapping[tuple[str, str], Any]:
        """The answers, or claims to answer, that stand for idempotency keys already."""
        asked = sorted(
            {(c.repeat.scope, c.repeat.key) for c in self._operations
             if isinstance(c, Claim) and c.repeat}
        )  # fmt: skip
        if not asked:
            return {}
        answers = schema.answers
        rows = select(answers).where(tuple_(answers.c.scope, answers.c.idempotency_key).in_(asked))
        found = connection.execute(rows).mappings()
        return {(row["scope"], row["idempotency_key"]): row for row in found}

    def _result(self, operation: Operation, repeats: Mapping[tuple[str, str], Any]) -> Result:
        if isinstance(operation, Entry):
            return self._settled(operation)
        repeat = operation.repeat
        if repeat and (row := repeats.get((repeat.scope, repeat.key))):
            return _as_before(repeat, row)
        return self._reserved(operation)

    def _reserved(self, claim: Claim) -> Result:
        standings = []
        for demand in claim.demands:
            left = demand.limit.amount - self._taken(demand.place) - demand.amount
            if left < 0 and demand.limit.is_hard:
                return _refusal(demand, left)
            standings.append(Standing(demand.limit, left))
        for demand in claim.demands:
            held = self.amounts.get(demand.place, 0)
            self.amounts[demand.place] = held + demand.amount
        return Reservation(self._held.worker, claim.demands, claim.repeat, tuple(standings))

    def _taken(self, place: Place) -> int:
        return self._used[place] + self._others.get(place, 0) + self.amounts.get(place, 0)

    def _settled(self, entry: Entry) -> Result:
        reservation = entry.reservation
        if reservation is None:
            return None
        if reservation.worker != self._held.worker:  # given up as dead, and its hold let go
            return LedgerAway(
                "The service was held up for so long that what was reserved for the request has "
                "lapsed; nothing was counted, send it again."
            )
        for demand in reservation.demands:
            self.amounts[demand.place] -= demand.amount
            if entry.record and demand.limit.measure != "at_once":
                self._used[demand.place] += entry.record.usage.of(demand.limit.measure)
        return None

    def _written(self) -> list[Entry]:
        """The entries that hold."""
        return [
            each
            for each, result in zip(self._operations, self.results, strict=True)
            if isinstance(each, Entry) and result is None
        ]

    def _write_claims(self, connection: Connection) -> None:
        """Claim idempotency keys that are new; of two for the same one, the first has it."""
        wanted: dict[tuple[str, str], int] = {}
        for number, result in enumerate(self.results):
            if isinstance(result, Reservation) and (repeat := result.repeat):
                place = repeat.scope, repeat.key
                if place in wanted:
                    self._let_go(number)
                wanted.setdefault(place, number)
        if not wanted:
            return
        claims = [self._claim(wanted[place]) for place in sorted(wanted)]
        answers = schema.answers.c
        placed = inserting(self._engine, schema.answers).values(claims).on_conflict_do_nothing()
        done = connection.execute(placed.returning(answers.scope, answers.idempotency_key))
        for place in wanted.keys() - {(scope, key) for scope, key in done}:
            self._let_go(wanted[place])

    def _claim(self, number: int) -> dict[str, Any]:
        """The row of a claim that was just reserved."""
        repeat = self._repeat(number)
        return {
            "scope": repeat.scope,
            "idempotency_key": repeat.key,
            "digest": repeat.digest,
            "worker": self._held.worker,
            "at_ms": now_ms(),
        }

    def _repeat(self, number: int) -> Repeat:
        result = self.results[number]
        assert isinstance(result, Reservation) and result.repeat
        return result.repeat

    def _let_go(self, number: int) -> None:
        result, repeat = self.results[number], self._repeat(number)
        assert isinstance(result, Reservation)
        for demand in result.demands:
            self.amounts[demand.place] -= demand.amount
        self.results[number] = _busy(repeat)

    def _write_counters(self, connection: Connection, before: Mapping[Place, int]) -> None:
        counters, holds = schema.counters, schema.holds
        used = [
            {"own_limit": limit, "own_window": window, "used": amount}
            for (limit, window), amount in sorted(self._used.items())
            if amount != before[limit, window]
        ]
        if used:
            own = (counters.c.limit_id == bindparam("own_limit")) & (
                counters.c.window_s == bindparam("own_window")
            )
            connection.execute(update(counters).where(own).values(used=bindparam("used")), used)
        held = [
            {"worker": self._held.worker, "limit_id": n, "window_s": window, "amount": amount}
            for (n, window), amount in sorted(self.amounts.items())
            if amount != self._held.amounts.get((n, window))
        ]
        if held:
            placed = inserting(self._engine, holds)
            placed = placed.on_conflict_do_update(
                index_elements=["worker", "limit_id", "window_s"],
                set_={"amount": placed.excluded.amount},
            )
            connection.execute(placed, held)

    def _write_records(self, connection: Connection) -> None:
        entries = self._written()
        records = [each.record for each in entries if each.record]
        if records:
            connection.execute(insert(schema.records), [each.to_row() for each in records])
            write_rollups(self._engine, connection, [r for r in records if r.usage.requests])
        kept = [each for each in entries if each.reservation and each.reservation.repeat]
        for each in kept:
            self._keep(connection, each)

    def _keep(self, connection: Connection, entry: Entry) -> None:
        """Keep the answer to an idempotency key, or give the key up where there is none."""
        assert entry.reservation and entry.reservation.repeat
        repeat, answers = entry.reservation.repeat, schema.answers
        own = (answers.c.scope == repeat.scope) & (answers.c.idempotency_key == repeat.key)
        if entry.kept is None or entry.record is None:
            connection.execute(answers.delete().where(own))
            return
        told = vars(entry.kept) | {"worker": None, "at_ms": entry.record.at_ms}
        connection.execute(update(answers).where(own).values(told))


def write_rollups(engine: Engine, connection: Connection, records: Iterable[Record]) -> None:
    """Add records to what their hours come to."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(USED))
    for record in records:
        hour_s = record.at_ms // HOUR_MS * 3600
        place = (
            record.organisation_id, hour_s, record.project_id, record.key_id, record.release,
            record.version,
        )  # fmt: skip
        own = sums[place]
        for number, name in enumerate(USED):
            own[number] += getattr(record.usage, name)
    if not sums:
        return
    columns = schema.rollups.c
    names = [column.name for column in schema.rollups.primary_key]
    rows = [
        dict(zip((*names, *USED), (*place, *own), strict=True))
        for place, own in sorted(sums.items())
    ]
    placed = inserting(engine, schema.rollups)
    added = {name: columns[name] + placed.excluded[name] for name in USED}
    connection.execute(placed.on_conflict_do_update(index_elements=names, set_=added), rows)


def _as_before(repeat: Repeat, row: Mapping[str, Any]) -> Result:
    if bytes(row["digest"]) != repeat.digest:
        return RequestRepeated(
            f"The idempotency key {repeat.key[:80]!r} stands for another request; use a new key "
            "for each request, and the same one only to send it again."
        )
    if row["status"] is None:
        return _busy(repeat)
    return Kept(row["status"], row["head"], bytes(row["body"]))


def _busy(repeat: Repeat) -> RequestRepeated:
    return RequestRepeated(
        f"The request with the idempotency key {repeat.key[:80]!r} is being answered; send it "
        "again a little later to get the same answer.",
        BUSY_SECONDS,
    )


def _refusal(demand: Demand, left: int) -> LimitReached:
    limit = demand.limit
    when = {"ever": "for good"}.get(limit.period, f"for each {limit.period}")
    what = limit.measure.replace("_", " ")
    if limit.measure == "at_once":
        when, what = "at once", "requests"
    return LimitReached(
        f"The {limit.subject_kind} has a limit of {limit.amount:,} {what} {when}, of which "
        f"{max(0, left + demand.amount):,} are left, and the request needs {demand.amount:,}.",
        demand.retry_after_s,
    )
