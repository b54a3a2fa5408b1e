"""The ledger: what is reserved and settled is exact, on both databases."""

import asyncio
import secrets

import pytest
from sqlalchemy import Engine, func, select

from modelyard.core.errors import LimitReached, RequestRepeated
from modelyard.ledger import customers, schema, usage
from modelyard.ledger.database import now_ms, reading, tables
from modelyard.ledger.entries import Claim, Demand, Entry, Kept, Record, Repeat, Reservation
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Limit, Usage
from modelyard.ledger.revisions import move


def record(usage: Usage, **other: object) -> Record:
    told = {
        "id": secrets.token_hex(8), "at_ms": now_ms(), "organisation_id": "o", "project_id": "p",
        "key_id": "k", "release": "tiny", "version": "3", "route": "/v1", "outcome": "answered",
        "status": 200, "latency_us": 1000, "queue_us": 10,
    }  # fmt: skip
    return Record(usage=usage, **(told | other))


def demand(limit: Limit, amount: int) -> Demand:
    return Demand(limit, limit.window_s(1000.0), amount, 1)


@pytest.fixture
def limit(engine: Engine) -> Limit:
    org = customers.add_organisation(engine, "acme")
    return customers.set_limit(engine, "organisation", org["id"], "rows", 100)


def test_what_settles_in_one_turn_is_one_transaction(engine: Engine) -> None:
    ledger = Ledger(engine)

    def transactions() -> int:
        with reading(engine) as connection:
            return int(connection.execute(select(schema.workers.c.beat)).scalar() or 0)

    async def settled(count: int) -> None:
        await asyncio.gather(
            *(ledger.settle(Entry(record(Usage(rows=1)))) for _ in range(count)),
        )

    asyncio.run(settled(1))
    before = transactions()
    asyncio.run(settled(50))
    after = transactions()
    ledger.close()
    assert after - before <= 2  # its beat may come between


def test_concurrent_requests_never_pass_a_budget(engine: Engine, limit: Limit) -> None:
    ledgers = [Ledger(engine) for _ in range(3)]

    async def one(number: int) -> bool:
        ledger = ledgers[number % 3]
        try:
            held = await ledger.reserve(Claim((demand(limit, 1),)))
        except LimitReached:
            return False
        await asyncio.sleep(0)
        await ledger.settle(Entry(record(Usage(rows=1)), held))
        return True

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(one(n) for n in range(200)))

    answered = asyncio.run(all_of_them())
    for ledger in ledgers:
        ledger.close()
    assert sum(answered) == 100
    with reading(engine) as connection:
        assert connection.execute(select(func.sum(schema.records.c.rows))).scalar() == 100
        assert connection.execute(select(func.sum(schema.rollups.c.rows))).scalar() == 100
        assert connection.execute(select(schema.counters.c.used)).scalar() == 100
        assert not connection.execute(select(schema.workers)).all()


def test_a_repeated_request_gets_the_first_answer_and_counts_once(engine: Engine) -> None:
    ledger = Ledger(engine)
    repeat = Repeat("p", "once", b"1" * 32)

    async def run() -> None:
        held = await ledger.reserve(Claim((), repeat))
        assert isinstance(held, Reservation)
        with pytest.raises(RequestRepeated, match="is being answered"):
            await ledger.reserve(Claim((), repeat))
        await ledger.settle(Entry(record(Usage(rows=2)), held, Kept(200, "{}", b"first")))
        assert await ledger.reserve(Claim((), repeat)) == Kept(200, "{}", b"first")
        with pytest.raises(RequestRepeated, match="stands for another"):
            await ledger.reserve(Claim((), Repeat("p", "once", b"2" * 32)))

    asyncio.run(run())
    ledger.close()
    with reading(engine) as connection:
        assert connection.execute(select(func.sum(schema.rollups.c.rows))).scalar() == 2


def test_the_tables_go_forward_and_back_and_are_those_of_the_code(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert not compare_metadata(context, schema.TABLES)
    move(engine, "base")
    assert tables(engine) == {"alembic_version"}
    move(engine)
    assert schema.TABLES.tables.keys() <= tables(engine)


def test_roll_ups_can_be_checked_and_added_up_anew(engine: Engine) -> None:
    ledger = Ledger(engine)

    async def run() -> None:
        for hour in range(3):
            at_ms = 1_700_000_000_000 + hour * 3_600_000
            for rows in (1, 5):
                await ledger.settle(Entry(record(Usage(rows=rows, tokens=7), at_ms=at_ms)))

    asyncio.run(run())
    ledger.close()
    assert not usage.differences(engine)
    whole = usage.Period(0, 2**40)
    [total] = usage.used(engine, whole, by=["organisation_id"])
    assert (total["requests"], total["rows"], total["tokens"]) == (6, 18, 42)
    with engine.begin() as connection:
        connection.execute(schema.rollups.update().values(rows=schema.rollups.c.rows + 1))
    assert len(usage.differences(engine)) == 3
    usage.rebuild(engine)
    assert not usage.differences(engine)
    assert usage.used(engine, whole, by=["organisation_id"]) == [total]
