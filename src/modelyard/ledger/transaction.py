"""A transaction: what several requests reserve and settle at the same moment, written together.

(Group commit; DeWitt et al. 1984, Implementation techniques for main memory database systems.)
Each is exact: a counter's row is locked while it is looked at, so what is used and what is held by
all workers together never passes a hard limit.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelyard.core.errors import LedgerAway, LimitReached, RequestRepeated
from modelyard.ledger.allowances import Allowances, Plan
from modelyard.ledger.contents import Content
from modelyard.ledger.database import now_ms
from modelyard.ledger.entries import (
    HOUR_MS,
    Claim,
    Demand,
    Entry,
    Kept,
    Operation,
    Place,
    Record,
    Repeat,
    Reservation,
    Result,
    Standing,
)
from modelyard.ledger.limits import USED
from modelyard.ledger.statements import Asked, Statements

BUSY_SECONDS = 1
"""After so long a request that is being answered may be sent again."""


class CounterGone(Exception):
    """A limit was removed, and with it a counter that is no longer seen to; nothing is written.

    Another try makes the counter before it locks any that comes later, as all have to.
    """


class Transaction:
    """Operations of one worker, written together; `results` has one for each."""

    def __init__(
        self,
        statements: Statements,
        allowances: Allowances,
        operations: Sequence[Operation],
        idle: Iterable[Place] = (),
    ):
        self._statements = statements
        self._allowances = allowances
        self._operations = operations
        self._idle = idle
        self.plans: dict[Place, Plan] = {}
        self.results: list[Result] = []
        self._used: dict[Place, int] = {}
        self._others: dict[Place, int] = {}
        self._looks: dict[Place, tuple[Asked, Asked]] = {}
        self._answers: dict[tuple[str, str], Asked] = {}

    def ask(self) -> None:
        """Lock the counters, and ask for what has to be known; nothing is waited for."""
        with self._allowances.lock:
            for each in self._operations:
                for demand in self._demands(each):
                    see_to = (
                        self._allowances.claim if isinstance(each, Claim) else self._allowances.of
                    )
                    see_to(demand)
                    self.plans[demand.place] = Plan()
        for place in self._idle:
            self.plans.setdefault(place, Plan(is_idle=True))
        for place in sorted(self.plans):
            if not self._allowances.at(place).is_known:
                self._count(place)
            self._looks[place] = self._look(place)
        asked = {each.repeat for each in self._operations if isinstance(each, Claim)}
        for repeat in asked - {None}:
            assert repeat
            self._answers[repeat.scope, repeat.key] = self._run("answer", repeat)

    def write(self) -> None:
        """Write all; nothing holds before it is committed. Raises CounterGone."""
        self._see()
        found = {place: asked.row() for place, asked in self._answers.items()}
        repeats = {place: row for place, row in found.items() if row}
        with self._allowances.lock:
            self.results = [self._result(each, repeats) for each in self._operations]
            for place, plan in self.plans.items():
                self._allowances.cap(place, plan, self._used[place], self._others[place])
        self._write_claims()
        with self._allowances.lock:
            for place, plan in self.plans.items():
                self._allowances.decide(place, plan, self._used[place], self._others[place])
        self._write_counters()
        self._write_records()

    def _count(self, place: Place) -> None:
        """Have a counter be there."""
        self._statements.run("counter", limit_id=place[0], window_s=place[1], used=0)

    def _look(self, place: Place) -> tuple[Asked, Asked]:
        """Lock a counter; ask what is used, and what other workers hold of it."""
        run, own = self._statements.run, {"limit_id": place[0], "window_s": place[1]}
        return run("used", **own), run("others", **own, worker=self._allowances.worker)

    def _see(self) -> None:
        """Read what was asked of the counters; raises CounterGone."""
        for place, (used, others) in self._looks.items():
            row, held = used.row(), others.row()
            if row is None or held is None:
                raise CounterGone
            self._used[place], self._others[place] = int(row[0]), int(held[0])

    def _demands(self, operation: Operation) -> Sequence[Demand]:
        own = operation if isinstance(operation, Claim) else operation.reservation
        if own and (isinstance(own, Claim) or own.worker == self._allowances.worker):
            return own.demands
        return ()

    def _run(self, name: str, repeat: Repeat, **more: Any) -> Asked:
        return self._statements.run(name, own_scope=repeat.scope, own_key=repeat.key, **more)

    def _result(self, operation: Operation, repeats: Mapping[tuple[str, str], Any]) -> Result:
        if isinstance(operation, Entry):
            return self._settled(operation)
        repeat = operation.repeat
        if repeat and (row := repeats.get((repeat.scope, repeat.key))):
            return _as_before(repeat, *row)
        return self._reserved(operation)

    def _reserved(self, claim: Claim) -> Result:
        standings = []
        for demand in claim.demands:
            place, plan = demand.place, self.plans[demand.place]
            taken = self._used[place] + plan.used + self._others[place]
            left = demand.limit.amount - taken - demand.amount
            left -= self._allowances.taken(place, plan)
            if demand.limit.is_hard and left + demand.amount < max(1, demand.amount):
                return _refusal(demand, left)
            standings.append(Standing(demand.limit, left))
        for demand in claim.demands:
            self.plans[demand.place].granted += demand.amount
        own = self._allowances.worker
        return Reservation(own, claim.demands, claim.repeat, tuple(standings))

    def _settled(self, entry: Entry) -> Result:
        reservation = entry.reservation
        if reservation is None:
            return None
        if reservation.worker != self._allowances.worker:  # struck off, and its holds let go
            return LedgerAway(
                "The service was held up for so long that what was reserved for the request has "
                "lapsed; nothing was counted, send it again."
            )
        for demand in reservation.demands:
            plan = self.plans[demand.place]
            plan.freed += demand.amount
            if entry.record and demand.limit.measure != "at_once":
                plan.used += entry.record.usage.of(demand.limit.measure)
        return None

    def _write_claims(self) -> None:
        """Claim idempotency keys that are new; of two for the same one, the first has it."""
        wanted: dict[tuple[str, str], tuple[int, Reservation, Repeat]] = {}
        for number, result in enumerate(self.results):
            if isinstance(result, Reservation) and (repeat := result.repeat):
                place = repeat.scope, repeat.key
                if place in wanted:
                    self._let_go(number, result, repeat)
                wanted.setdefault(place, (number, result, repeat))
        ordered = [wanted[place] for place in sorted(wanted)]
        claims = [self._claim(repeat) for _, _, repeat in ordered]
        for (number, result, repeat), claim in zip(ordered, claims, strict=True):
            if claim.row() is None:
                self._let_go(number, result, repeat)

    def _claim(self, repeat: Repeat) -> Asked:
        """Claim a key; has a row where it was not taken."""
        return self._statements.run(
            "claim",
            scope=repeat.scope,
            idempotency_key=repeat.key,
            digest=repeat.digest,
            worker=self._allowances.worker,
            at_ms=now_ms(),
        )

    def _let_go(self, number: int, reservation: Reservation, repeat: Repeat) -> None:
        for demand in reservation.demands:
            self.plans[demand.place].granted -= demand.amount
        self.results[number] = _busy(repeat)

    def _write_counters(self) -> None:
        worker = self._allowances.worker
        used, held = [], []
        for (limit_id, window_s), plan in sorted(self.plans.items()):
            own = {"limit_id": limit_id, "window_s": window_s}
            if plan.used:
                used.append(own | {"more": plan.used})
            if plan.held != self._allowances.at((limit_id, window_s)).held:
                held.append(own | {"worker": worker, "amount": plan.held})
        self._statements.many("use", used)
        self._statements.many("hold", held)

    def _write_records(self) -> None:
        entries = [
            each
            for each, result in zip(self._operations, self.results, strict=True)
            if isinstance(each, Entry) and result is None
        ]
        records = [each.record for each in entries if each.record]
        self._statements.many("record", (each.to_row() for each in records))
        self._statements.many("rollup", rollups_of(records))
        kept = [_content_of(each.record, each.content) for each in entries if each.record]
        self._statements.many("content", [each for each in kept if each])
        for each in entries:
            if each.reservation and each.reservation.repeat:
                self._keep(each.reservation.repeat, each)

    def _keep(self, repeat: Repeat, entry: Entry) -> None:
        """Keep the answer to an idempotency key, or give the key up where there is none."""
        if entry.kept is None or entry.record is None:
            self._run("drop", repeat)
            return
        self._run("keep", repeat, at_ms=entry.record.at_ms, **entry.kept._asdict())


def _content_of(record: Record, content: Content | None) -> dict[str, Any] | None:
    own = {name: getattr(record, name) for name in ("id", "at_ms", "release", "version")}
    return own | vars(content) if content else None


def rollups_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What records come to, by hour, customer and release; sorted, so that workers take turns."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(USED))
    for record in records:
        if record.usage.requests:
            own = sums[_rollup_of(record)]
            for number, name in enumerate(USED):
                own[number] += getattr(record.usage, name)
    names = ("organisation_id", "hour_s", "project_id", "key_id", "release", "version", *USED)
    return [dict(zip(names, (*place, *own), strict=True)) for place, own in sorted(sums.items())]


def _rollup_of(record: Record) -> tuple[Any, ...]:
    hour_s = record.at_ms // HOUR_MS * 3600
    who = record.organisation_id, hour_s, record.project_id, record.key_id
    return *who, record.release, record.version


def _as_before(repeat: Repeat, digest: Any, status: Any, head: Any, body: Any) -> Result:
    if bytes(digest) != repeat.digest:
        return RequestRepeated(
            f"The idempotency key {repeat.key[:80]!r} stands for another request; use a new key "
            "for each request, and the same one only to send it again."
        )
    if status is None:
        return _busy(repeat)
    return Kept(status, head, bytes(body))


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
        f"{max(0, left + demand.amount):,} are left, and the request needs "
        f"{f'{demand.amount:,}' if demand.amount else 'some'}.",
        demand.retry_after_s,
    )
