"""Customers of the service: organisations, their projects and users."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_database, add_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

ACTIONS = {
    "add": ("a new organisation", ("name",)),
    "project": ("a new project of an organisation", ("organisation", "name")),
    "user": ("a new user of an organisation", ("organisation", "name", "role")),
    "role": ("another role for a user, which the user's keys have at once", ("user", "role")),
    "remove-user": ("take a user away, and revoke the user's keys", ("user",)),
    "list": ("all organisations, with their projects and users", ()),
}
ROLES = ("owner", "developer", "billing", "viewer")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `customer`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, (about, words) in ACTIONS.items():
        own = actions.add_parser(action, help=about, description=about)
        for word in words:
            own.add_argument(word, choices=ROLES if word == "role" else None)
        add_database(own)
        add_json(own, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    from modelyard.serving import using_ledger

    with using_ledger(options.database) as engine:
        print_rows(_rows(engine, options), options.json, _line)
    return 0


def _rows(engine: "Engine", options: argparse.Namespace) -> list[dict[str, Any]]:
    from modelyard.ledger import customers

    match options.action:
        case "add":
            return [customers.add_organisation(engine, options.name)]
        case "project":
            return [customers.add_project(engine, options.organisation, options.name)]
        case "user":
            args = (engine, options.organisation, options.name, options.role)
            return [customers.add_user(*args)]
        case "role":
            return [customers.set_role(engine, options.user, options.role)]
        case "remove-user":
            customers.remove_user(engine, options.user)
            return []
    return [row for org in customers.listed(engine, "organisation") for row in _whole(engine, org)]


def _whole(engine: "Engine", organisation: dict[str, Any]) -> list[dict[str, Any]]:
    """An organisation, and what it has."""
    from modelyard.ledger import customers

    scope = customers.Scope(organisation["id"])
    return [
        organisation,
        *customers.listed(engine, "project", scope),
        *customers.listed(engine, "user", scope),
    ]


def _line(row: Mapping[str, Any]) -> str:
    indent = "  " if "organisation_id" in row else ""
    return f"{indent}{row['id']}  {row['name']}  {row.get('role', '')}".rstrip()


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, line: Any) -> None:
    """Rows as JSON, or each as a line for people."""
    import json

    for row in rows:
        print(json.dumps(row, ensure_ascii=False) if as_json else line(row))
