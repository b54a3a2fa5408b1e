"""Keys of the service: made and shown once, listed, rotated with overlap, revoked at once."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json

if TYPE_CHECKING:
    from sqlalchemy import Engine


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `key`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in (
        ("add", "make a key, and show it this once"),
        ("list", "all keys, without what is secret"),
        ("rotate", "make a key in place of another, which holds for a while more"),
        ("revoke", "have a key hold no longer"),
    ):
        own = actions.add_parser(action, help=about, description=about)
        if action == "add":
            _add_new(own)
        elif action != "list":
            own.add_argument("key", help="the key's id: what stands between the two _ of it")
        if action == "rotate":
            own.add_argument(
                "--overlap-hours", type=float, default=24.0, help="default: %(default)s"
            )
        add_database(own)
        add_json(own, "one JSON object a line")


def _add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="what it is for")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--project", help="for a program of this project: id or name")
    whose.add_argument("--user", help="for this user, with the user's role: id or name")
    whose.add_argument("--admin", action="store_true", help="for whoever runs the service")
    parser.add_argument(
        "--release", action="append", default=[], help="what it may ask (default: all)"
    )
    parser.add_argument("--days", type=float, help="after which it expires (default: never)")


def main(options: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    from modelyard.serving import using_ledger

    with using_ledger(options.database) as engine:
        print_rows(_rows(engine, options), options.json, _line)
    return 0


def _rows(engine: "Engine", options: argparse.Namespace) -> list[dict[str, Any]]:
    from modelyard.ledger import customers

    match options.action:
        case "list":
            return customers.listed(engine, "key")
        case "revoke":
            return [customers.revoke_key(engine, options.key)]
        case "rotate":
            row, made = customers.rotate_key(engine, options.key, options.overlap_hours)
        case _:
            row, made = customers.add_key(
                engine,
                options.name,
                project=options.project,
                user=options.user,
                releases=options.release,
                days=options.days,
            )
    return [row | {"key": made.text}]


def _line(row: Mapping[str, Any]) -> str:
    if "key" in row:
        return f"{row['key']}\n  keep it: it is shown this once"
    state = "revoked" if row["revoked_ms"] else ""
    of = row["project_id"] or row["user_id"] or ""
    return "  ".join(part for part in (row["id"], row["role"], of, row["name"], state) if part)
