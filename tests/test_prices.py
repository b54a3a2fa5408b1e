"""Prices: set by command, written down with each answer, and told with the usage."""

import asyncio
import json

import pytest
from sqlalchemy import Engine
from tests.test_ledger import record

from modelyard.cli.main import main
from modelyard.ledger import customers, usage
from modelyard.ledger.directory import Directory
from modelyard.ledger.entries import Entry
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import MOST_SPENT, Price, Usage, spend_micros


def test_prices_are_set_and_told_by_command(
    engine: Engine, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["price", "set", "rows", "0.50", "--per", "1000", "--database", url]
    assert main(words) == 0
    assert capsys.readouterr().out == "any release: 0.5 for 1,000 rows\n"
    assert main(["price", "set", "tokens", "2", "--release", "tiny", "--database", url]) == 0
    capsys.readouterr()
    assert main(["price", "list", "--json", "--database", url]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        {"release": "", "measure": "rows", "micros": 500_000, "per": 1000},
        {"release": "tiny", "measure": "tokens", "micros": 2_000_000, "per": 1},
    ]
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, made = customers.add_key(engine, "shop", project="web")
    directory = Directory(engine)
    caller = directory.caller(made.text)
    directory.close()
    assert spend_micros(Usage(rows=3, tokens=9), caller.prices_of("other")) == 1500
    assert spend_micros(Usage(rows=3, tokens=9), caller.prices_of("tiny")) == 18_000_000


@pytest.mark.parametrize("amount", ["x", "-1", "0.0000001", "nan", "inf", "1e30", ""])
def test_an_amount_that_is_none_is_refused(
    url: str, amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["price", "set", "rows", "--database", url, "--", amount]) == 2
    assert "A price is" in capsys.readouterr().err


def test_the_dearest_request_can_be_written_down(engine: Engine) -> None:
    dear = {"rows": Price("rows", 10**12, 1), "tokens": Price("tokens", 10**12, 1)}
    spent = spend_micros(Usage(rows=10**6, tokens=10**9), dear)
    ledger = Ledger(engine)

    async def settle() -> None:
        for _ in range(2):
            await ledger.settle(Entry(record(Usage(rows=1, spend_micros=spent))))

    asyncio.run(settle())
    ledger.close()
    [told] = usage.used(engine, usage.Period(0, 2**40), ["organisation_id"])
    assert told["spend_micros"] == 2 * MOST_SPENT
