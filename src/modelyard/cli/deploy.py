"""Deploy releases: place, load and unload them, turn aliases and share traffic out, roll back."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json, add_public_key

if TYPE_CHECKING:
    from sqlalchemy import Engine

ACTIONS = {
    "add": "verify a release, and have services load it",
    "load": "have services load a release that was placed",
    "unload": "have services let a release go",
    "point": "have an alias lead to versions, by weight",
    "rollback": "have an alias lead where it led before",
    "list": "what is placed, and where aliases lead",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `deploy`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in ACTIONS.items():
        own = actions.add_parser(action, help=about, description=about)
        if action == "add":
            own.add_argument("release", type=Path, help="a release's folder, or a project's")
            add_public_key(own)
        elif action in ("load", "unload"):
            own.add_argument("name", help="the release's name, or name@version")
        elif action != "list":
            own.add_argument("name", help="the release's name")
            own.add_argument("alias", help="prod is what the name alone stands for")
        if action == "point":
            own.add_argument("shares", nargs="+", metavar="VERSION=WEIGHT", help="as in 2=90 3=10")
            own.add_argument("--shadow", metavar="VERSION", help="asked beside, answers nobody")
        if action != "list":
            own.add_argument("--wait", action="store_true", help="until every worker has followed")
        add_database(own)
        add_json(own, "one JSON object a line")


def main(options: argparse.Namespace) -> int:
    """Do it, and print what holds now."""
    from modelyard.ledger import deployments
    from modelyard.serving import using_ledger

    with using_ledger(options.database) as engine:
        if options.action != "list":
            generation = _done(engine, options)
            if options.wait:
                deployments.await_followed(engine, generation)
        found = deployments.standing(engine)
    rows = [*map(vars, found.placements), *({"name": x.name, **x.to_json()} for x in found.leads)]
    print_rows(rows, options.json, _line)
    return 0


def _done(engine: "Engine", options: argparse.Namespace) -> int:
    from modelyard.ledger import deployments
    from modelyard.serving import place_release

    match options.action:
        case "add":
            return place_release(engine, options.release, options.public_key)
        case "point":
            shares = dict(map(_share, options.shares))
            lead = deployments.Lead(options.name, options.alias, shares, options.shadow)
            return deployments.point(engine, lead)
        case "rollback":
            return deployments.roll_back(engine, options.name, options.alias)
    name, _, version = options.name.partition("@")
    return deployments.load(engine, name, version or None, is_loaded=options.action == "load")


def _share(text: str) -> tuple[str, int]:
    from modelyard.core.errors import SettingInvalid

    version, _, weight = text.rpartition("=")
    if not version or not weight.isdecimal():
        raise SettingInvalid(f"A share is VERSION=WEIGHT, as in 2=90; got {text!r}.")
    return version, int(weight)


def _line(row: Mapping[str, Any]) -> str:
    if "alias" not in row:
        state = "loaded" if row["is_loaded"] else "unloaded"
        return f"{row['name']}@{row['version']}  {state}  {row['folder']}"
    shares = ", ".join(f"{version}={weight}" for version, weight in row["shares"].items())
    shadow = f"  shadow {row['shadow']}" if row["shadow"] else ""
    return f"{row['name']}@{row['alias']}  {shares}{shadow}"
