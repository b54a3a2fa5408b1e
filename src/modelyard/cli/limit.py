"""Limits of keys, projects and organisations: how much of what they may use."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

SUBJECTS = ("organisation", "project", "key")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `limit`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    own = actions.add_parser("set", help="set or change a limit", description="Set a limit.")
    _add_subject(own)
    own.add_argument(
        "measure",
        help="requests, rows, tokens, images, compute_us, spend_micros (millionths of your "
        "currency), or at_once",
    )
    own.add_argument("amount", type=int)
    own.add_argument(
        "--per", default="ever", help="second, minute, hour, day, month (default: for good)"
    )
    own.add_argument("--soft", action="store_true", help="only warn")
    listing = actions.add_parser("list", help="limits of one", description="The limits of one.")
    _add_subject(listing)
    removing = actions.add_parser("remove", help="take one away", description="Take one away.")
    removing.add_argument("limit", type=int, help="its number")
    for each in (own, listing, removing):
        add_database(each)
        add_json(each, "one JSON object a line")


def _add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=SUBJECTS)
    parser.add_argument("subject", help="its id, or its name")


def main(options: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    from modelyard.serving import using_ledger

    with using_ledger(options.database) as engine:
        print_rows(_rows(engine, options), options.json, _line)
    return 0


def _rows(engine: "Engine", options: argparse.Namespace) -> list[dict[str, Any]]:
    from modelyard.ledger import customers

    match options.action:
        case "set":
            words = (options.kind, options.subject, options.measure, options.amount, options.per)
            return [vars(customers.set_limit(engine, *words, is_hard=not options.soft))]
        case "list":
            owner = customers.find(engine, options.kind, options.subject)
            return [vars(each) for each in customers.limits_of(engine, options.kind, owner["id"])]
    customers.remove_limit(engine, options.limit)
    return []


def _line(row: Mapping[str, Any]) -> str:
    when = "" if row["period"] == "ever" else f" per {row['period']}"
    kind = "at most" if row["is_hard"] else "warns at"
    what = row["measure"].replace("_", " ")
    owner = f"{row['subject_kind']} {row['subject_id']}"
    by = ", set by the customer" if row["set_by"] == "customer" else ""
    return f"{row['id']}  {owner}: {kind} {row['amount']:,} {what}{when}{by}"
