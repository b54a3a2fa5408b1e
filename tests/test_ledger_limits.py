"""Limits in the ledger: none is passed, whatever comes between; on both databases."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from tests.test_ledger import demand, record

from modelyard.core.errors import LimitReached
from modelyard.ledger import customers, schema
from modelyard.ledger.database import reading
from modelyard.ledger.entries import Claim, Demand, Entry, Kept, Repeat, Reservation
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Limit, Measure, Usage
from modelyard.ledger.statements import Statements


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    customers.add_organisation(engine, "acme")
    made = Ledger(engine)
    yield made
    made.close()


def limit_of(engine: Engine, amount: int, measure: Measure = "rows") -> Limit:
    return customers.set_limit(engine, "organisation", "acme", measure, amount)


async def granted(ledger: Ledger, demands: list[Demand]) -> int:
    """How much of these is granted, one after the other."""
    found = 0
    for each in demands:
        try:
            held = await ledger.reserve(Claim((each,)))
        except LimitReached:
            continue
        await ledger.settle(Entry(record(Usage(rows=each.amount)), held_by(held)))
        found += each.amount
    return found


def held_by(found: Reservation | Kept) -> Reservation:
    assert isinstance(found, Reservation)
    return found


def used(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.sum(schema.counters.c.used))).scalar() or 0)


def test_what_is_taken_while_a_claim_is_written_does_not_pass_the_limit(
    engine: Engine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = limit_of(engine, 6400)
    run: Callable[..., Any] = Statements.run
    between: list[Reservation] = []

    def running(self: Statements, name: str, **values: Any) -> Any:
        if name == "claim":
            while taken := ledger._allowances.take((demand(limit, 1),)):
                between.append(taken)
        return run(self, name, **values)

    async def ask() -> int:
        first = held_by(await ledger.reserve(Claim((demand(limit, 1),))))
        monkeypatch.setattr(Statements, "run", running)
        large = Claim((demand(limit, 6350),), Repeat("p", "once", b"1" * 32))
        second = held_by(await ledger.reserve(large))
        amounts = zip((first, second, *between), (1, 6350, *[1] * len(between)), strict=True)
        for held, rows in amounts:
            await ledger.settle(Entry(record(Usage(rows=rows)), held))
        return 6351 + len(between)

    total = asyncio.run(ask())
    assert between  # what is left is given out meanwhile, and no more
    assert total <= 6400
    assert used(engine) == total


def test_a_limit_that_is_lowered_holds_at_once(engine: Engine, ledger: Ledger) -> None:
    high = limit_of(engine, 6400)

    async def ask() -> tuple[int, int]:
        first = await granted(ledger, [demand(high, 1)] * 5)
        low = limit_of(engine, 8)
        assert low.id == high.id
        return first, await granted(ledger, [demand(low, 1)] * 20)

    assert asyncio.run(ask()) == (5, 3)
    assert used(engine) == 8


def test_a_limit_that_is_raised_is_used_at_once(engine: Engine, ledger: Ledger) -> None:
    low = limit_of(engine, 2)

    async def ask() -> tuple[int, int]:
        first = await granted(ledger, [demand(low, 1)] * 5)
        return first, await granted(ledger, [demand(limit_of(engine, 7), 1)] * 20)

    assert asyncio.run(ask()) == (2, 5)


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_limit_of_what_is_known_at_the_end_refuses_once_it_is_reached(
    engine: Engine, ledger: Ledger, is_repeated: bool
) -> None:
    limit = limit_of(engine, 100, "compute_us")

    async def ask() -> list[bool]:
        found = []
        for number in range(4):
            repeat = Repeat("p", f"key {number}", b"1" * 32) if is_repeated else None
            try:
                held = held_by(await ledger.reserve(Claim((demand(limit, 0),), repeat)))
            except LimitReached:
                found.append(False)
                continue
            await ledger.settle(Entry(record(Usage(rows=1, compute_us=50)), held))
            found.append(True)
        return found

    assert asyncio.run(ask()) == [True, True, False, False]
    assert used(engine) == 100


def test_workers_that_share_a_limit_use_it_up_and_never_pass_it(engine: Engine) -> None:
    customers.add_organisation(engine, "acme")
    limit = limit_of(engine, 1000)
    ledgers = [Ledger(engine) for _ in range(3)]
    most = [0, 0]

    async def one(number: int) -> None:
        ledger, amount = ledgers[number % 3], number % 7 + 1
        repeat = Repeat("p", f"key {number}", b"1" * 32) if number % 2 else None
        try:
            held = held_by(await ledger.reserve(Claim((demand(limit, amount),), repeat)))
        except LimitReached:
            return
        most[0] += amount
        most[1] = max(most)
        await asyncio.sleep(0)
        fails = number % 5 == 0
        if fails:
            most[0] -= amount
        await ledger.settle(Entry(None if fails else record(Usage(rows=amount)), held))

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(600)))
        for number in range(600, 900):
            await one(number)

    asyncio.run(all_of_them())
    for each in ledgers:
        each.close()
    assert most[1] <= 1000
    assert used(engine) == most[0] <= 1000
    assert most[0] > 990


def test_what_is_granted_as_the_request_goes_is_let_go(engine: Engine, ledger: Ledger) -> None:
    limit = limit_of(engine, 1, "at_once")
    claim = Claim((demand(limit, 1),), Repeat("p", "once", b"1" * 32))

    async def ask() -> None:
        asked = asyncio.create_task(ledger.reserve(claim))
        set_all = ledger._set_all

        def granted_and_gone(some: Any) -> None:
            set_all(some)
            asked.cancel()

        ledger._set_all = granted_and_gone  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await asked
        ledger._set_all = set_all  # type: ignore[method-assign]
        again = Claim((demand(limit, 1),), Repeat("p", "twice", b"2" * 32))
        await ledger.settle(Entry(record(Usage(rows=1)), held_by(await ledger.reserve(again))))

    asyncio.run(ask())


def test_a_counter_that_went_with_its_limit_is_made_before_a_later_one_is_locked(
    engine: Engine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever locks a later one first may wait for another that waits for it."""
    limits = [limit_of(engine, 6400, measure) for measure in ("rows", "tokens")]
    run: Callable[..., Any] = Statements.run
    ran: list[tuple[str, int]] = []

    def running(self: Statements, name: str, **values: Any) -> Any:
        if name == "beat":
            ran.clear()
        elif name in ("counter", "used"):
            ran.append((name, values["limit_id"]))
        return run(self, name, **values)

    async def once() -> None:
        held = await ledger.reserve(Claim(tuple(demand(each, 1) for each in limits)))
        await ledger.settle(Entry(record(Usage(rows=1, tokens=1)), held_by(held)))

    async def ask() -> None:
        await once()
        customers.remove_limit(engine, limits[0].id)
        monkeypatch.setattr(Statements, "run", running)
        await once()

    asyncio.run(ask())
    monkeypatch.undo()
    first, second = (each.id for each in limits)
    assert ran[:4] == [("counter", first), ("used", first), ("counter", second), ("used", second)]
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(schema.records)).scalar() == 2
