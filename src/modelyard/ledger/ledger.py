"""The ledger of a process that serves: what requests reserve and settle, written together."""

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Engine, insert, select

from modelyard.core.errors import LedgerAway
from modelyard.ledger import deployments, schema
from modelyard.ledger.allowances import Allowances
from modelyard.ledger.contents import AT_ONCE_ROWS, delete_old
from modelyard.ledger.database import reading, writing
from modelyard.ledger.entries import (
    Claim,
    Entry,
    Kept,
    Operation,
    Place,
    Reservation,
    Result,
)
from modelyard.ledger.statements import Asked, Statements
from modelyard.ledger.transaction import CounterGone, Transaction
from modelyard.ledger.workers import Others, let_go, this_host

MOST_TOGETHER = 512
MOST_NOTED = 10_000
MOST_IDLE = 200
AWAY_SECONDS = 0.1
"""After a failure, before the database is asked again."""
BEAT_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""So long an answer of the database is waited for, which is longer than each of its time-outs."""
CLEAN_SECONDS = 3600.0
"""Between two deletions of rows and answers whose days have passed."""
UNSURE_SECONDS = 20.0
"""How long it is tried to find out whether a transaction took place whose end was not heard."""


@dataclass
class Waiting:
    """An operation and the future that gets its result, if anybody waits."""

    operation: Operation
    done: "asyncio.Future[Result] | None" = None


class Ledger:
    """Takes claims and entries of requests; a thread writes those that come together at once."""

    def __init__(
        self,
        engine: Engine,
        host: str | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ):
        self._engine = engine
        self._host = host or this_host()
        self._others = Others(engine, self._host)
        self._tell = tell
        self._statements = Statements(engine)
        self._allowances = Allowances("")
        self._beat = 0
        self._followed = deployments.FOLLOWS_NONE
        self._queue: list[Waiting] = []
        self._is_due_to_wake = False
        self._changed = threading.Condition()
        self._is_closed = False
        self._failure: LedgerAway | None = None
        self._writes_since: float | None = None
        self._idle: list[Place] = []
        self._looked = self._cleaned = -CLEAN_SECONDS
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

    @property
    def is_away(self) -> bool:
        """Whether nothing can be written at this moment."""
        return bool(self._failure) or self._is_stuck or not self._thread.is_alive()

    @property
    def _is_stuck(self) -> bool:
        """Whether the database has not answered for long, and has not broken the connection."""
        since = self._writes_since
        return since is not None and time.monotonic() - since > STUCK_SECONDS

    def follow(self, generation: int) -> None:
        """Say as of which generation of what is deployed this serves; raises LedgerAway."""
        self._followed = generation
        deployments.follow(self._engine, self.worker, generation)

    async def reserve(self, claim: Claim) -> Reservation | Kept:
        """Reserve what a request needs; or the answer that it has had already.

        Raises LimitReached, RequestRepeated and LedgerAway. Whoever gets a Reservation settles it.
        """
        if self._failure or self._is_stuck:
            raise _as_away(self._failure) if self._failure else _stuck()
        if claim.repeat is None and (taken := self._allowances.take(claim.demands)):
            return taken
        found = await self._result(claim, STUCK_SECONDS, _stuck)
        assert isinstance(found, Reservation | Kept)
        return found

    async def settle(self, entry: Entry) -> None:
        """Write what a request has come to; it is on disk when this returns.

        Raises LedgerAway: then nothing was counted, and what was reserved has been let go; or the
        error says that it could not be found out.
        """
        await self._result(entry, UNSURE_SECONDS + STUCK_SECONDS, _unknown)

    async def _result(
        self, operation: Operation, seconds: float, late: Callable[[], LedgerAway]
    ) -> Result:
        """What the thread makes of an operation; an error where it takes longer than that.

        Where nobody waits any more once it is there, what it reserves is let go.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        self._put(Waiting(operation, done))
        waited = loop.call_later(seconds, _give_up, done, late)
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:
                self._give_back(done.result())  # it came in the turn in which the request went
            raise
        finally:
            waited.cancel()

    def note(self, entry: Entry) -> None:
        """Write a request that nobody waits for, soon.

        Where far too many wait, a refusal is left out of the journal; what it held is let go.
        """
        if len(self._queue) > MOST_NOTED and not entry.is_answered:
            entry = Entry(None, entry.reservation)
            if entry.reservation is None:
                return
        with suppress(LedgerAway):
            self._put(Waiting(entry))

    def close(self) -> None:
        """Write what is left, and go; a database that never answers is not waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(STUCK_SECONDS)

    def _put(self, waiting: Waiting) -> None:
        with self._changed:
            if self._is_closed or not self._thread.is_alive():
                raise LedgerAway(
                    "The service is about to end, and takes nothing more; nothing was counted, "
                    "send the request again."
                )
            self._queue.append(waiting)
            if self._is_due_to_wake:
                return
            self._is_due_to_wake = True
        try:  # after all that settle in this turn of the loop, so that they are written together
            asyncio.get_running_loop().call_soon(self._wake)
        except RuntimeError:
            self._wake()

    def _wake(self) -> None:
        with self._changed:
            if self._queue:  # unless the thread has come by already
                self._changed.notify()

    def _work(self) -> None:
        while batch := self._taken():
            waiting = [each for each in batch if each is not _TICK]
            before = self._failure
            results = self._results([each.operation for each in waiting])
            self._let_go_unwritten(waiting, results)  # before anybody is told, and asks again
            self._deliver(waiting, results)
            with suppress(Exception):  # whatever it is, those who come next may not be left waiting
                self._look_round(before)
        self._leave()
        self._statements.close()

    def _results(self, operations: Sequence[Operation]) -> list[Result]:
        if not self._idle and self._is_due:
            self._idle = self._allowances.idle()
        idle, self._idle = self._idle[:MOST_IDLE], self._idle[MOST_IDLE:]
        self._writes_since = time.monotonic()
        try:
            return self._written(operations, idle)
        except Exception as error:  # noqa: BLE001 – whatever it is, nobody may be left waiting
            return [_as_away(error) for _ in operations]
        finally:
            self._writes_since = None

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._looked > BEAT_SECONDS

    def _look_round(self, before: LedgerAway | None) -> None:
        """Between two transactions: tell of a failure and its end, look at other workers."""
        if self._failure:
            self._wait_out(self._failure)
        if self._failure and not before:
            self._say(str(self._failure))
        if before and not self._failure:
            self._say("The ledger's database takes what is written again.")
        if not self._failure and self._is_due:
            self._looked = time.monotonic()
            self._others.look(self.worker)
            self._clean()

    def _clean(self) -> None:
        """Delete rows and answers that are kept no longer, some at a time."""
        is_due = time.monotonic() - self._cleaned > CLEAN_SECONDS
        if is_due and delete_old(self._engine) < AT_ONCE_ROWS:
            self._cleaned = time.monotonic()

    def _say(self, sentence: str) -> None:
        with suppress(Exception):  # nobody listens
            self._tell(sentence)

    def _wait_out(self, failure: LedgerAway) -> None:
        """Tell all that wait of a failure, and wait a little before the next try."""
        with self._changed:
            rest, self._queue = self._queue, []
        failed: list[Result] = [_as_away(failure) for _ in rest]
        self._let_go_unwritten(rest, failed)
        self._deliver(rest, failed)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, AWAY_SECONDS)

    def _taken(self) -> list[Waiting]:
        """What waits; after a while without anything, a beat; nothing at the end."""
        with self._changed:
            if not self._queue and not self._is_closed:
                self._is_due_to_wake = False  # a wake-up may have come while this was not waiting
                self._changed.wait(AWAY_SECONDS if self._failure else BEAT_SECONDS)
            self._is_due_to_wake = False
            batch, self._queue = self._queue[:MOST_TOGETHER], self._queue[MOST_TOGETHER:]
            return batch or ([] if self._is_closed else [_TICK])

    def _written(self, operations: Sequence[Operation], idle: Sequence[Place] = ()) -> list[Result]:
        """Each operation's result; LedgerAway for all where the database does not take them."""
        transaction = Transaction(self._statements, self._allowances, operations, idle)
        try:
            with self._statements.transaction():
                beat = self._beats()
                transaction.ask()
                if beat.row() is None:
                    raise _StruckOff
                transaction.write()
        except _StruckOff:
            return self._again(operations)
        except CounterGone:
            self._allowances.done(transaction.plans, False)
            self._allowances.doubt(transaction.plans)
            return self._written(operations, idle)
        except LedgerAway as error:
            return self._unheard(transaction, operations, error)
        except Exception as error:  # noqa: BLE001 – whatever it is, nobody may be left waiting
            if self._statements.is_unsure or not operations:
                return self._unheard(transaction, operations, _as_away(error))
            self._allowances.done(transaction.plans, False)
            return self._one_by_one(operations, error)
        return self._holding(transaction)

    def _holding(self, transaction: Transaction) -> list[Result]:
        self._allowances.done(transaction.plans, True)
        self._beat += 1
        self._failure = None
        return transaction.results

    def _unheard(
        self, transaction: Transaction, operations: Sequence[Operation], error: LedgerAway
    ) -> list[Result]:
        """What came of a transaction that the database has not said to be done."""
        self._failure = error  # whoever comes now is told at once
        has_happened: bool | None = False
        if self._statements.is_unsure:
            has_happened = self._took_place(operations)
        if has_happened:
            return self._holding(transaction)
        self._allowances.done(transaction.plans, False)
        return [_as_away(error) if has_happened is False else _unknown() for _ in operations]

    def _one_by_one(self, operations: Sequence[Operation], error: Exception) -> list[Result]:
        """Have one that cannot be written spoil no other."""
        if len(operations) < 2:
            self._say(f"A request could not be written: {type(error).__name__}: {error}"[:1000])
            return [_as_away(error) for _ in operations]
        self._failure = None
        found: list[Result] = []
        for each in operations:
            try:
                found += [_as_away(self._failure)] if self._failure else self._written([each])
            except Exception as broken:  # noqa: BLE001 – what came before it is written
                found.append(_as_away(broken))
        return found

    def _beats(self) -> Asked:
        """Number this transaction; has no row where this worker was struck off."""
        own = {"worker": self.worker, "old": self._beat, "new": self._beat + 1}
        return self._statements.run("beat", **own)

    def _again(self, operations: Sequence[Operation]) -> list[Result]:
        """After having been given up: under a new name, which holds nothing."""
        try:
            self._enrol()
        except LedgerAway as error:
            self._failure = error
            return [_as_away(error) for _ in operations]
        return self._written(operations)

    def _took_place(self, operations: Sequence[Operation]) -> bool | None:
        """Whether a transaction was committed whose end was not heard; None: it is not known."""
        ends = time.monotonic() + UNSURE_SECONDS
        while time.monotonic() < ends and not self._is_closed:
            try:
                return self._is_written(operations)
            except LedgerAway:
                time.sleep(AWAY_SECONDS)
        return None

    def _is_written(self, operations: Sequence[Operation]) -> bool:
        """By the number of the last transaction; by a record, where this worker was struck off.

        The row is waited for as long as the transaction may still be under way.
        """
        own, records = schema.workers.c, schema.records.c
        query = select(own.beat).where(own.id == self.worker).with_for_update()
        with reading(self._engine) as connection:
            beat = connection.execute(query).scalar()
            if beat is not None:
                return bool(beat == self._beat + 1)
            first = next((e.record for e in operations if isinstance(e, Entry) and e.record), None)
            if first is None:
                return False
            found = select(records.id).where(records.at_ms == first.at_ms, records.id == first.id)
            return connection.execute(found).first() is not None

    def _enrol(self) -> None:
        """Take a name of one's own."""
        worker = f"wrk_{secrets.token_hex(8)}"
        own = {"host": self._host, "process": os.getpid()}
        row = {"id": worker, **own, "beat": 0, "generation": self._followed}
        with writing(self._engine) as connection:
            let_go(connection, self.worker)
            connection.execute(insert(schema.workers).values(row))
        self._allowances, self._beat, self._idle = Allowances(worker), 0, []

    def _leave(self) -> None:
        try:
            with writing(self._engine) as connection:
                let_go(connection, self._allowances.worker)
        except LedgerAway:  # others will see that it beats no more
            return

    def _deliver(self, waiting: Sequence[Waiting], results: Sequence[Result]) -> None:
        """Hand results to those who wait, in one go for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiting, Result]]] = {}
        for each, result in zip(waiting, results, strict=True):
            if each.done is not None:
                by_loop.setdefault(each.done.get_loop(), []).append((each, result))
        for loop, some in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._set_all, some)

    def _give_back(self, result: Result) -> None:
        if isinstance(result, Reservation):
            self.note(Entry(None, result))

    def _set_all(self, some: Sequence[tuple[Waiting, Result]]) -> None:
        for each, result in some:
            done = each.done
            assert done is not None
            if done.done():  # the request has gone meanwhile
                self._give_back(result)
            elif isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

    def _let_go_unwritten(self, waiting: Sequence[Waiting], results: Sequence[Result]) -> None:
        """What failed is not counted, but what it had reserved is let go."""
        for each, result in zip(waiting, results, strict=True):
            entry = each.operation
            if not isinstance(entry, Entry) or not isinstance(result, LedgerAway):
                continue
            own = entry.reservation
            if own and own.worker == self.worker:
                self._allowances.let_go(own.demands)
                if own.repeat:  # the next request with its key is answered once that is written
                    again = Waiting(Entry(None, Reservation(own.worker, (), own.repeat)))
                    with self._changed:
                        self._queue += [again] * (not self._is_closed)


class _StruckOff(Exception):
    """The worker that writes has been struck off."""


_TICK = Waiting(Entry(None))


def _as_away(error: Exception) -> LedgerAway:
    """An error of its own for each that gets one."""
    if isinstance(error, LedgerAway):
        return LedgerAway(error.told, error.reason)
    return LedgerAway(
        "The ledger could not write the request down; nothing was counted.",
        f"{type(error).__name__}: {error}"[:200],
    )


def _give_up(done: "asyncio.Future[Result]", late: Callable[[], LedgerAway]) -> None:
    if not done.done():
        done.set_exception(late())


def _stuck() -> LedgerAway:
    return LedgerAway(
        "The ledger's database does not answer; nothing was counted, send the request again a "
        "little later."
    )


def _unknown() -> LedgerAway:
    return LedgerAway(
        "The ledger's database went away while the request was written, and whether it was counted "
        "is not known; send it again with the same Idempotency-Key, so that it counts once."
    )
