"""The ledger where the database, or what is asked of it, fails."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select
from tests.ledgers import own_postgres, pgserver
from tests.test_ledger import demand, record

from modelyard.core.errors import KeyRefused, LedgerAway
from modelyard.ledger import customers, schema
from modelyard.ledger.database import hurried, opened, reading, writing
from modelyard.ledger.directory import Directory
from modelyard.ledger.entries import Claim, Entry, Repeat, Reservation
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Limit, Usage
from modelyard.ledger.revisions import ready
from modelyard.ledger.transaction import Transaction
from modelyard.ledger.workers import Others, let_go


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    made = Ledger(engine)
    yield made
    made.close()


def limit_in(engine: Engine) -> Limit:
    customers.add_organisation(engine, "acme")
    return customers.set_limit(engine, "organisation", "acme", "rows", 6400)


def rows_counted(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.sum(schema.rollups.c.rows))).scalar() or 0)


@pytest.mark.parametrize("strikes_off", [False, True])
@pytest.mark.parametrize("commits", [True, False])
def test_a_commit_whose_end_is_not_heard_is_looked_up(
    engine: Engine,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    commits: bool,
    strikes_off: bool,
) -> None:
    broken: type[Exception] = engine.dialect.dbapi.OperationalError  # type: ignore[union-attr]

    def commit(connection: Any) -> None:
        monkeypatch.undo()
        if commits:
            connection.commit()
        else:
            ledger._statements.close()
        if strikes_off:
            with writing(engine) as connection:
                let_go(connection, ledger.worker)
        raise broken("the connection has gone")

    async def ask() -> None:
        await ledger.settle(Entry(record(Usage(rows=1))))
        monkeypatch.setattr(type(ledger._statements._connection), "commit", commit)
        settled = ledger.settle(Entry(record(Usage(rows=2))))
        if commits:
            await settled
        else:
            with pytest.raises(LedgerAway, match="gone"):
                await settled
        await eventually_settled(ledger, Entry(record(Usage(rows=4))))

    asyncio.run(ask())
    assert rows_counted(engine) == (7 if commits else 5)


async def eventually_settled(ledger: Ledger, entry: Entry) -> None:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            return await ledger.settle(entry)
        except LedgerAway:
            continue
    raise AssertionError("the ledger takes nothing any more")


def test_a_worker_that_was_struck_off_keeps_no_file_locked(tmp_path: Path) -> None:
    """Where a file has no write-ahead log, as on a network disk, who reads stops who writes."""
    url = f"sqlite:///file:{tmp_path}/ledger.sqlite3?vfs=unix-dotfile&uri=true"
    engine = ready(opened(url))
    with engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert mode == "delete"
    limit = limit_in(engine)
    ledger = Ledger(engine)

    async def ask() -> None:
        await ledger.reserve(Claim((demand(limit, 1),), Repeat("p", "one", b"1" * 32)))
        with writing(engine) as connection:
            let_go(connection, ledger.worker)
        await ledger.reserve(Claim((demand(limit, 1),), Repeat("p", "two", b"2" * 32)))
        await ledger.settle(Entry(record(Usage(rows=1))))

    asyncio.run(ask())
    ledger.close()
    assert rows_counted(engine) == 1
    engine.dispose()


def test_one_that_cannot_be_written_spoils_no_other(engine: Engine, ledger: Ledger) -> None:
    async def ask() -> list[Any]:
        usages = [Usage(rows=1), Usage(rows=2**70), Usage(rows=2), Usage(rows=4)]
        settled = (ledger.settle(Entry(record(each))) for each in usages)
        return await asyncio.gather(*settled, return_exceptions=True)

    found = asyncio.run(ask())
    assert [type(each) for each in found] == [type(None), LedgerAway, type(None), type(None)]
    assert "2**" not in found[1].told and "Error" not in found[1].told
    assert rows_counted(engine) == 7


def test_a_thread_that_fails_leaves_nobody_waiting(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    ledger = Ledger(engine, tell=told.append)

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    async def ask() -> None:
        monkeypatch.setattr("modelyard.ledger.ledger.Others.look", fail)
        monkeypatch.setattr("modelyard.ledger.transaction.Transaction.write", fail)
        with pytest.raises(LedgerAway, match="RuntimeError: broken"):
            await ledger.settle(Entry(record(Usage(rows=1))))
        monkeypatch.undo()
        await ledger.settle(Entry(record(Usage(rows=2))))

    asyncio.run(ask())
    ledger.close()
    assert rows_counted(engine) == 2
    assert any("broken" in each for each in told)


def test_while_the_database_is_away_newcomers_are_told_at_once_and_it_can_be_closed() -> None:
    with own_postgres() as server:
        engine = hurried(ready(opened(server.get_uri())))
        customers.add_organisation(engine, "acme")
        limit = customers.set_limit(engine, "organisation", "acme", "rows", 100)
        told: list[str] = []
        ledger = Ledger(engine, tell=told.append)
        other = Ledger(engine)

        async def ask() -> None:
            held = await ledger.reserve(Claim((demand(limit, 60),)))
            once = await ledger.reserve(Claim((demand(limit, 30),), Repeat("p", "k", b"1" * 32)))
            pgserver().pg_ctl(
                ["stop", "-m", "immediate"], pgdata=server.pgdata, user=server.system_user
            )
            assert isinstance(held, Reservation) and isinstance(once, Reservation)
            for each in (held, once):
                with pytest.raises(LedgerAway):
                    await ledger.settle(Entry(record(Usage(rows=1)), each))
            began = time.monotonic()
            for _ in range(1000):
                with pytest.raises(LedgerAway):
                    await ledger.reserve(Claim((demand(limit, 1),)))
            assert time.monotonic() - began < 1
            assert ledger.is_away and len(ledger._queue) <= 1
            server.ensure_postgres_running()
            ends = time.monotonic() + 20
            while ledger.is_away:
                assert time.monotonic() < ends
                await asyncio.sleep(0.01)
            held = await ledger.reserve(Claim((demand(limit, 100),), Repeat("p", "k", b"1" * 32)))
            assert isinstance(held, Reservation)  # all that was held has been let go
            await ledger.settle(Entry(record(Usage(rows=100)), held))

        asyncio.run(ask())
        assert rows_counted(engine) == 100
        assert "does not take" in told[0] and "again" in told[-1]
        pgserver().pg_ctl(
            ["stop", "-m", "immediate"], pgdata=server.pgdata, user=server.system_user
        )
        began = time.monotonic()
        ledger.close()
        other.close()
        assert time.monotonic() - began < 15
        with pytest.raises(LedgerAway, match="about to end"):
            asyncio.run(ledger.settle(Entry(record(Usage(rows=1)))))
        engine.dispose()
        server.ensure_postgres_running()


def test_a_revoked_key_is_refused_also_where_nobody_sees_that_it_was(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("broken")

    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    row, made = customers.add_key(engine, "shop", project="web")
    directory = Directory(engine)
    assert directory.caller(made.text) == directory.remembered(made.text)
    monkeypatch.setattr(Directory, "_look", fail)
    customers.revoke_key(engine, row["id"])
    ends = time.monotonic() + 1
    while directory.remembered(made.text):
        assert time.monotonic() < ends
    with pytest.raises(KeyRefused, match="revoked"):
        directory.caller(made.text)
    monkeypatch.undo()
    while not directory._is_fresh:
        assert time.monotonic() < ends + 20
    directory.close()


def test_a_process_that_ended_is_struck_off_by_those_of_its_own_machine(engine: Engine) -> None:
    dead = 2**22 + 1  # above any number that Linux gives
    rows = [
        {"id": f"wrk_{host}", "host": host, "process": dead, "beat": 0}
        for host in ("here", "there")
    ]
    with writing(engine) as connection:
        connection.execute(insert(schema.workers), rows)
    Others(engine, "here").look("wrk_own")
    with reading(engine) as connection:
        assert connection.execute(select(schema.workers.c.id)).scalars().all() == ["wrk_there"]


def test_a_database_that_does_not_answer_has_nobody_wait_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with one that is stopped, whose connections stand: nothing fails, and nothing comes."""
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, made = customers.add_key(engine, "shop", project="web")
    thawed = threading.Event()

    def wait(*_: Any) -> None:
        thawed.wait(60)
        raise LedgerAway("It has gone meanwhile.")

    monkeypatch.setattr("modelyard.ledger.ledger.STUCK_SECONDS", 0.3)
    monkeypatch.setattr("modelyard.ledger.ledger.UNSURE_SECONDS", 0.3)
    monkeypatch.setattr("modelyard.ledger.directory.AWAY_SECONDS", 0.6)
    ledger, directory = Ledger(engine), Directory(engine)
    monkeypatch.setattr("modelyard.ledger.transaction.Transaction.write", wait)
    monkeypatch.setattr(Directory, "_read", wait)
    monkeypatch.setattr(Directory, "_look", wait)

    async def ask() -> None:
        with pytest.raises(LedgerAway, match="is not known"):
            await ledger.settle(Entry(record(Usage(rows=1))))
        with pytest.raises(LedgerAway, match="does not answer"):
            await ledger.reserve(Claim((), Repeat("p", "k", b"1" * 32)))
        while directory._is_fresh:
            await asyncio.sleep(0.01)
        for _ in range(6):  # more than there are threads
            with pytest.raises(LedgerAway, match="nobody's key is known"):
                await directory.looked_up(made.text)

    began = time.monotonic()
    asyncio.run(ask())
    assert ledger.is_away and directory.is_away
    directory.close()
    ledger.close()
    assert time.monotonic() - began < 15
    thawed.set()
    ledger._thread.join()
    directory._thread.join()


def test_what_one_by_one_has_written_stays_whatever_comes_after(
    engine: Engine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = limit_in(engine)
    write = Transaction.write
    tries: list[int] = []

    def writing_badly(self: Transaction) -> None:
        tries.append(len(self._operations))
        rows = [each.record.usage.rows for each in self._operations if isinstance(each, Entry)]
        if len(rows) > 1 or rows == [2]:
            raise RuntimeError("broken")
        if rows == [3]:
            raise LedgerAway("gone")
        write(self)

    async def ask() -> list[Any]:
        held = [await ledger.reserve(Claim((demand(limit, n),))) for n in (1, 2, 3, 4)]
        monkeypatch.setattr(Transaction, "write", writing_badly)
        entries = [
            Entry(record(Usage(rows=n)), own)
            for n, own in zip((1, 2, 3, 4), held, strict=True)
            if isinstance(own, Reservation)
        ]
        settled = (ledger.settle(each) for each in entries)
        return await asyncio.gather(*settled, return_exceptions=True)

    found = asyncio.run(ask())
    monkeypatch.undo()
    assert [type(each) for each in found] == [type(None), LedgerAway, LedgerAway, LedgerAway]
    assert tries[-3:] == [1, 1, 1]  # the database that has gone is not asked for the last
    assert rows_counted(engine) == 1
    [own] = ledger._allowances._all.values()
    assert own.reserved == 0 and own.room <= own.held


def test_what_is_left_of_a_soft_limit_is_told_as_it_is(engine: Engine, ledger: Ledger) -> None:
    organisation = customers.add_organisation(engine, "acme")
    words = (engine, "organisation", organisation["id"], "rows", 100)
    limit = customers.set_limit(*words, is_hard=False)

    async def ask() -> list[int]:
        told = []
        for _ in range(4):
            held = await ledger.reserve(Claim((demand(limit, 10),)))
            assert isinstance(held, Reservation)
            told.append(held.standings[0].left)
            await ledger.settle(Entry(record(Usage(rows=10)), held))
        return told

    assert asyncio.run(ask()) == [90, 80, 70, 60]
