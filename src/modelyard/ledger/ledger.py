"""The ledger of a process that serves: what requests reserve and settle, written together."""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import DBAPIError

from modelyard.core.errors import LedgerAway
from modelyard.ledger import schema
from modelyard.ledger.allowances import Allowances
from modelyard.ledger.database import away, reading, writing
from modelyard.ledger.entries import (
    Claim,
    Entry,
    Kept,
    Operation,
    Place,
    Reservation,
    Result,
)
from modelyard.ledger.statements import Statements
from modelyard.ledger.transaction import Transaction

MOST_TOGETHER = 512
MOST_NOTED = 10_000
AWAY_SECONDS = 0.1
"""After a failure, before the database is asked again."""
BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""After so long without a beat a worker is given up, and what it holds is let go."""
UNSURE_SECONDS = 20.0
"""How long it is tried to find out whether a transaction took place whose end was not heard."""


@dataclass
class Waiting:
    """An operation and the future that gets its result, if anybody waits."""

    operation: Operation
    done: "asyncio.Future[Result] | None" = None


class Ledger:
    """Takes claims and entries of requests; a thread writes those that come together at once."""

    def __init__(self, engine: Engine, host: str | None = None):
        self._engine = engine
        self._host = host or socket.gethostname()
        self._statements = Statements(engine)
        self._allowances = Allowances("")
        self._beat = 0
        self._queue: list[Waiting] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._silent: dict[str, tuple[int, float]] = {}
        self._enrol()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The database."""
        return self._engine

    @property
    def worker(self) -> str:
        """The name that this process has in the ledger."""
        return self._allowances.worker

    async def reserve(self, claim: Claim) -> Reservation | Kept:
        """Reserve what a request needs; or the answer that it has had already.

        Raises LimitReached, RequestRepeated and LedgerAway. Whoever gets a Reservation settles it.
        """
        if claim.repeat is None and (taken := self._allowances.take(claim.demands)):
            return taken
        done = asyncio.get_running_loop().create_future()
        self._put(Waiting(claim, done))
        try:
            found = await asyncio.shield(done)
        except asyncio.CancelledError:
            done.add_done_callback(self._give_back)
            raise
        assert isinstance(found, Reservation | Kept)
        return found

    async def settle(self, entry: Entry) -> None:
        """Write what a request has come to; it is on disk when this returns.

        Raises LedgerAway: then nothing was counted, and what was reserved has been let go.
        """
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(asyncio.Future.exception)  # heard, also where nobody waits any more
        self._put(Waiting(entry, done))
        await asyncio.shield(done)

    def note(self, entry: Entry) -> None:
        """Write a request that nobody waits for, soon.

        Where far too many wait, a refusal is left out of the journal; what it held is let go.
        """
        if len(self._queue) > MOST_NOTED and not entry.is_answered:
            entry = Entry(None, entry.reservation)
            if entry.reservation is None:
                return
        self._put(Waiting(entry))

    def close(self) -> None:
        """Write what is left, and go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _give_back(self, done: "asyncio.Future[Result]") -> None:
        """Let go what was reserved for a request that has gone meanwhile."""
        if not done.cancelled() and done.exception() is None:
            found = done.result()
            if isinstance(found, Reservation):
                self.note(Entry(None, found))

    def _put(self, waiting: Waiting) -> None:
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify()

    def _work(self) -> None:
        looked = -BEAT_SECONDS
        while batch := self._taken():
            waiting = [each for each in batch if each is not _TICK]
            is_due = time.monotonic() - looked > BEAT_SECONDS
            idle = self._allowances.idle() if is_due else []
            results = self._written([each.operation for each in waiting], idle)
            _deliver(waiting, results)
            if any(isinstance(result, LedgerAway) for result in results):
                self._keep_unwritten(waiting, results)
                time.sleep(AWAY_SECONDS)
            if is_due:
                looked = time.monotonic()
                self._look_at_others()
        self._leave()
        self._statements.close()

    def _taken(self) -> list[Waiting]:
        """What waits; after a second without anything, a beat; nothing at the end."""
        with self._changed:
            if not self._queue and not self._is_closed:
                self._changed.wait(BEAT_SECONDS)
            batch, self._queue = self._queue[:MOST_TOGETHER], self._queue[MOST_TOGETHER:]
            return batch or ([] if self._is_closed else [_TICK])

    def _written(self, operations: Sequence[Operation], idle: Sequence[Place] = ()) -> list[Result]:
        """Each operation's result; LedgerAway for all where the database does not take them."""
        transaction = Transaction(self._statements, self._allowances, operations, idle)
        is_committed = True
        try:
            with self._statements.transaction() as cursor:
                if not self._beats(cursor):
                    raise _StruckOff
                transaction.write(cursor)
        except _StruckOff:
            return self._again(operations)
        except LedgerAway as error:
            is_committed = bool(transaction.results) and self._took_place()
            failure: Exception = error
        except Exception as error:  # noqa: BLE001 – whatever it is, nobody may be left waiting
            is_committed, failure = False, _as_away(error)
        self._allowances.done(transaction.plans, is_committed)
        if not is_committed:
            return [failure] * len(operations)
        self._beat += 1
        return transaction.results

    def _beats(self, cursor: Any) -> bool:
        """Number this transaction; False where this worker was struck off as dead."""
        own = {"worker": self.worker, "old": self._beat, "new": self._beat + 1}
        return bool(self._statements.run(cursor, "beat", **own).rowcount == 1)

    def _again(self, operations: Sequence[Operation]) -> list[Result]:
        """After having been given up: under a new name, which holds nothing."""
        try:
            self._enrol()
        except LedgerAway as error:
            return [error] * len(operations)
        return self._written(operations)

    def _took_place(self) -> bool:
        """Whether a transaction was committed whose end was not heard."""
        ends = time.monotonic() + UNSURE_SECONDS
        query = select(schema.workers.c.beat).where(schema.workers.c.id == self._allowances.worker)
        while time.monotonic() < ends:
            try:
                with reading(self._engine) as connection:
                    return connection.execute(query).scalar() == self._beat + 1
            except LedgerAway:
                time.sleep(0.2)
        return False

    def _enrol(self) -> None:
        """Take a name of one's own."""
        worker = f"wrk_{secrets.token_hex(8)}"
        row = {"id": worker, "host": self._host, "process": os.getpid(), "beat": 0}
        with writing(self._engine) as connection:
            connection.execute(insert(schema.workers).values(row))
        self._allowances, self._beat = Allowances(worker), 0

    def _leave(self) -> None:
        try:
            with writing(self._engine) as connection:
                let_go(connection, self._allowances.worker)
        except LedgerAway:  # others will see that it beats no more
            return

    def _keep_unwritten(self, waiting: Sequence[Waiting], results: Sequence[Result]) -> None:
        """What failed is not counted, but what it had reserved has to be let go."""
        for each, result in zip(waiting, results, strict=True):
            entry = each.operation
            if not isinstance(entry, Entry) or not isinstance(result, LedgerAway):
                continue
            if entry.reservation and entry.reservation.worker == self._allowances.worker:
                self._put(Waiting(Entry(None, entry.reservation)))

    def _look_at_others(self) -> None:
        """Let go what workers hold that are dead."""
        try:
            with reading(self._engine) as connection:
                rows = connection.execute(select(schema.workers)).mappings().all()
            now = time.monotonic()
            for row in rows:
                beat, since = self._silent.get(row["id"], (-1, now))
                since = since if beat == row["beat"] else now
                self._silent[row["id"]] = row["beat"], since
                is_silent = now - since > SILENT_SECONDS
                if row["id"] != self._allowances.worker and (is_silent or self._is_dead(row)):
                    with writing(self._engine) as connection:
                        let_go(connection, row["id"], row["beat"])
            self._silent = {row["id"]: self._silent[row["id"]] for row in rows}
        except LedgerAway:
            return

    def _is_dead(self, row: Any) -> bool:
        """Whether a worker of this machine has ended."""
        if row["host"] != self._host:
            return False
        try:
            os.kill(row["process"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def let_go(connection: Connection, worker: str, beat: int | None = None) -> None:
    """Strike a worker off with all it holds; unless it has beaten since `beat`."""
    own = schema.workers.c.id == worker
    if beat is not None:
        own &= schema.workers.c.beat == beat
    if not connection.execute(delete(schema.workers).where(own)).rowcount:
        return
    connection.execute(delete(schema.holds).where(schema.holds.c.worker == worker))
    connection.execute(delete(schema.answers).where(schema.answers.c.worker == worker))


class _StruckOff(Exception):
    """The worker that writes has been struck off."""


_TICK = Waiting(Entry(None))


def _as_away(error: Exception) -> LedgerAway:
    if isinstance(error, DBAPIError):
        return away(error)
    return LedgerAway(
        f"The ledger could not be written ({type(error).__name__}: {error}); nothing was counted."
    )


def _deliver(waiting: Sequence[Waiting], results: Sequence[Result]) -> None:
    """Hand results to those who wait, in one go for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiting, Result]]] = {}
    for each, result in zip(waiting, results, strict=True):
        if each.done is not None:
            by_loop.setdefault(each.done.get_loop(), []).append((each, result))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_all, some)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            continue


def _set_all(some: Sequence[tuple[Waiting, Result]]) -> None:
    for each, result in some:
        assert each.done is not None
        set_to: Callable[[Any], None] = each.done.set_result
        if isinstance(result, Exception):
            set_to = each.done.set_exception
        set_to(result)
