"""Prices: what a release costs its customers, for each row, token, image or request."""

import argparse
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json
from modelyard.core.errors import SettingInvalid

if TYPE_CHECKING:
    from sqlalchemy import Engine

MEASURES = ("requests", "rows", "tokens", "images", "compute_us")
MICROS = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `price`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    own = actions.add_parser("set", help="set or change a price", description="Set a price.")
    own.add_argument("measure", choices=MEASURES)
    own.add_argument("amount", help="in your currency, as in 0.50; 0 is for nothing")
    own.add_argument(
        "--per", type=int, default=1, help="so many of the measure cost that (default: 1)"
    )
    own.add_argument(
        "--release", default="", help="of one release (default: any that has no price of its own)"
    )
    listing = actions.add_parser("list", help="all prices", description="All prices.")
    for each in (own, listing):
        add_database(each)
        add_json(each, "one JSON object a line; micros are millionths of your currency")


def main(options: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    from modelyard.serving import using_ledger

    with using_ledger(options.database) as engine:
        print_rows(_rows(engine, options), options.json, _line)
    return 0


def _rows(engine: "Engine", options: argparse.Namespace) -> list[dict[str, Any]]:
    from modelyard.ledger import customers

    if options.action == "set":
        words = (options.release, options.measure, _micros(options.amount), options.per)
        return [customers.set_price(engine, *words)]
    return customers.prices(engine)


def _micros(text: str) -> int:
    """Millionths of a currency.

    >>> _micros("0.50")
    500000
    """
    try:
        micros = Decimal(text) * MICROS
        if micros.is_finite() and micros == micros.to_integral_value():
            return int(micros)
    except InvalidOperation:
        pass
    raise SettingInvalid(
        f"A price is an amount with at most six digits after the point, as in 0.50; got "
        f"{text[:40]!r}."
    )


def _line(row: Mapping[str, Any]) -> str:
    whole = Decimal(row["micros"]) / MICROS
    what = row["measure"].replace("_", " ")
    return f"{row['release'] or 'any release'}: {whole:,f} for {row['per']:,} {what}"
