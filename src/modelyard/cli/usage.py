"""Usage of customers in a month, from the ledger's roll-ups."""

import argparse
from collections.abc import Mapping
from typing import Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json
from modelyard.ledger.periods import BY, columns, month, this_month


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
    from modelyard.doors import ledger_database
    from modelyard.ledger import customers, usage

    period = month(options.month or this_month())
    by = columns(options.by.split(","))
    engine = ledger_database(options.database)
    scope = customers.EVERYBODY
    if options.organisation:
        found = customers.find(engine, "organisation", options.organisation)
        scope = customers.Scope(found["id"])
    rows = usage.used(engine, period, by, scope)
    print_rows(rows, options.json, _line)
    return 0


def _line(row: Mapping[str, Any]) -> str:
    place = "  ".join(str(row[name]) for name in BY.values() if name in row)
    return (
        f"{place}  {row['requests']:,} requests, {row['rows']:,} rows, {row['tokens']:,} tokens, "
        f"{row['images']:,} images, {row['compute_us'] / 1e6:,.3f} s of computing, "
        f"{row['spend_micros'] / 1e6:,.6f}"
    )
