"""Usage of customers in a month, from the ledger's roll-ups; or events for billing elsewhere."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.customer import print_rows
from modelyard.cli.options import add_database, add_json
from modelyard.ledger.periods import BY, columns, month, this_month

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from modelyard.ledger.customers import Scope
    from modelyard.ledger.exports import Exported, Wanted

FORMS = ("cloudevents", "openmeter", "lago", "stripe")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `usage`."""
    parser.add_argument("--organisation", help="of one alone: its id or name")
    parser.add_argument("--month", help="as in 2026-11 (default: this month, UTC)")
    parser.add_argument(
        "--by",
        default="organisation,release",
        help=f"some of {', '.join(BY)} (default: %(default)s)",
    )
    _add_export(parser)
    add_database(parser)
    add_json(parser, "one JSON object a line")


def _add_export(parser: argparse.ArgumentParser) -> None:
    export = parser.add_argument_group("events for billing, instead of sums")
    export.add_argument(
        "--export", choices=FORMS, help="print events of answered requests, one JSON object a line"
    )
    export.add_argument(
        "--after",
        type=int,
        metavar="NUMBER",
        help="of records after this number, which the export before has told (without --month: "
        "of all months)",
    )
    export.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="ids that the receiver knows organisations by, as JSON: {ID: ID THERE, ...} "
        "(default: their own)",
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="write into this file")


def main(options: argparse.Namespace) -> int:
    """Print the usage, or events of it."""
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger import customers
    from modelyard.serving import ledger_database

    by = columns(options.by.split(","))
    if not options.export and (options.out or options.ids or options.after is not None):
        raise SettingInvalid("--after, --ids and --out go with --export FORM; give that too.")
    engine = ledger_database(options.database)
    try:
        scope = customers.EVERYBODY
        if options.organisation:
            found = customers.find(engine, "organisation", options.organisation)
            scope = customers.Scope(found["id"])
        if options.export:
            return _export(engine, scope, options)
        return _print(engine, scope, by, options)
    finally:
        engine.dispose()


def _print(engine: "Engine", scope: "Scope", by: list[str], options: argparse.Namespace) -> int:
    from modelyard.ledger import usage

    print_rows(
        usage.used(engine, month(options.month or this_month()), by, scope), options.json, _line
    )
    return 0


def _export(engine: "Engine", scope: "Scope", options: argparse.Namespace) -> int:
    from modelyard.ledger import exports
    from modelyard.ledger.files import drafted

    wanted, ids = _wanted(scope, options), _ids(options.ids)
    if options.out is None:
        done = exports.write(engine, options.export, wanted, sys.stdout, ids)
    else:
        with drafted(options.out) as draft, draft.open("w", encoding="utf-8") as file:
            done = exports.write(engine, options.export, wanted, file, ids)
    _tell(done, options)
    return 0


def _wanted(scope: "Scope", options: argparse.Namespace) -> "Wanted":
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger.exports import Wanted

    after = options.after
    if after is not None and not 0 <= after < 2**63:
        raise SettingInvalid(f"--after takes the number of a record, from 0; got {after}.")
    is_whole = options.month is None and after is not None
    period = None if is_whole else month(options.month or this_month())
    return Wanted(after or 0, period, scope.organisation_id)


def _ids(file: Path | None) -> dict[str, str] | None:
    """Ids by organisation; raises SettingInvalid where the file says none."""
    from modelyard.core.errors import SettingInvalid

    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise SettingInvalid(
            f'{file} is no JSON object of ids; write it as {{"org_0123456789abcdef": "cus_123"}}.'
        )
    return found


def _tell(done: "Exported", options: argparse.Namespace) -> None:
    """Say where the next export begins; beside the events, not among them."""
    place = sys.stderr if options.out is None else sys.stdout
    if options.json:
        print(json.dumps({"event": "exported", **vars(done)}), file=place)
        return
    print(
        f"{done.events:,} events of {done.records:,} records; go on with --after {done.last}",
        file=place,
    )


def _line(row: Mapping[str, Any]) -> str:
    place = "  ".join(str(row[name]) for name in BY.values() if name in row)
    return (
        f"{place}  {row['requests']:,} requests, {row['rows']:,} rows, {row['tokens']:,} tokens, "
        f"{row['images']:,} images, {row['compute_us'] / 1e6:,.3f} s of computing, "
        f"{row['spend_micros'] / 1e6:,.6f}"
    )
