"""Usage of customers in a month, from the ledger's roll-ups."""

import argparse
import calendar
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json

if TYPE_CHECKING:
    from modelyard.ledger.usage import Period

BY = {
    "organisation": "organisation_id",
    "project": "project_id",
    "key": "key_id",
    "release": "release",
    "version": "version",
    "hour": "hour_s",
}
MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `usage`."""
    parser.add_argument("--organisation", help="of one alone: its id or name")
    parser.add_argument("--month", help="as in 2026-11 (default: this month, UTC)")
    parser.add_argument(
        "--by",
        default="organisation,release",
        help=f"some of {', '.join(BY)} (default: %(default)s)",
    )
    add_database(parser)
    add_json(parser, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Print the usage."""
    from modelyard.core.errors import SettingInvalid
    from modelyard.doors import ledger_database
    from modelyard.ledger import customers, usage

    engine = ledger_database(options.database)
    names = options.by.split(",")
    if strange := [name for name in names if name not in BY]:
        raise SettingInvalid(f"--by takes some of {', '.join(BY)}; got {', '.join(strange)}.")
    scope = customers.EVERYBODY
    if options.organisation:
        found = customers.find(engine, "organisation", options.organisation)
        scope = customers.Scope(found["id"])
    rows = usage.used(engine, month(options.month), [BY[name] for name in names], scope)
    print_rows(rows, options.json, _line)
    return 0


def month(given: str | None) -> "Period":
    """The hours of a month; raises SettingInvalid."""
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger.usage import Period

    text = given or time.strftime("%Y-%m", time.gmtime())
    found = MONTH.fullmatch(text)
    if not found:
        raise SettingInvalid(f"--month takes a year and a month, as in 2026-11; got {text!r}.")
    year, number = int(found[1]), int(found[2])
    start, end = (
        calendar.timegm((y, m, 1, 0, 0, 0))
        for y, m in ((year, number), (year + number // 12, number % 12 + 1))
    )
    return Period(start, end)


def _line(row: Mapping[str, Any]) -> str:
    place = "  ".join(str(row[name]) for name in BY.values() if name in row)
    return (
        f"{place}  {row['requests']:,} requests, {row['rows']:,} rows, {row['tokens']:,} tokens, "
        f"{row['images']:,} images, {row['compute_us'] / 1e6:,.3f} s of computing, "
        f"{row['spend_micros'] / 1e6:,.6f}"
    )
