"""The ledger's database: checked, rebuilt, brought to a revision, backed up, compacted."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_database, add_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from modelyard.ledger.usage import Difference

ACTIONS = {
    "check": "say whether the roll-ups are what the records come to",
    "rebuild": "add up the roll-ups anew, from the records",
    "migrate": "bring the tables to the latest revision, or another, with all rows",
    "backup": "write all that it has into one file, while the service goes on",
    "restore": "fill an empty database, of either kind, with a backup",
    "contents": "print rows and answers that were kept, as [serve] keep says",
    "compact": "move whole days of old records into files, and delete what nobody asks for",
}
MOST_DAYS = 36_500


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `ledger`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in ACTIONS.items():
        own = actions.add_parser(action, help=about, description=f"{about.capitalize()}.")
        if action in ("check", "rebuild", "compact"):
            own.add_argument(
                "--folder",
                type=Path,
                required=action == "compact",
                help="where older records are, in files",
            )
        if action in ("backup", "restore"):
            own.add_argument("file", type=Path, help="the backup")
        if action == "contents":
            _add_which(own)
        if action == "migrate":
            own.add_argument("--to", metavar="REVISION", help="default: the latest")
        if action == "compact":
            _add_ages(own)
        add_database(own)
        add_json(own, "one JSON object a line")


def _add_ages(parser: argparse.ArgumentParser) -> None:
    for option, number, what in (
        ("--keep-days", 35, "days whose records stay in the database"),
        ("--answers-hours", 24, "hours for which answers are kept that are asked for again"),
    ):
        parser.add_argument(
            option, type=int, default=number, metavar="N", help=f"{what} (default: %(default)s)"
        )


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", metavar="NAME", help="of one release (default: of all)")
    parser.add_argument(
        "--days", type=float, default=MOST_DAYS, metavar="N", help="of the last N days"
    )


def main(options: argparse.Namespace) -> int:
    """Do it, and print what came of it; 1 where roll-ups are not what they should be."""
    from modelyard.serving import ledger_as_it_is

    engine = ledger_as_it_is(options.database)
    try:
        if options.action == "check":
            return _check(_standing(engine), options)
        if options.action == "contents":
            return _print_contents(_standing(engine), options)
        told, sentence = _done(engine, options)
    finally:
        engine.dispose()
    print(json.dumps(told) if options.json else sentence)
    return 0


def _done(engine: "Engine", options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What one of the others has come to, for programs and as a sentence."""
    match options.action:
        case "rebuild":
            return _rebuilt(engine, options)
        case "migrate":
            return _migrated(engine, options)
        case "compact":
            return _compacted(engine, options)
    return _copied(engine, options)


def _check(engine: "Engine", options: argparse.Namespace) -> int:
    from modelyard.ledger.usage import differences

    found = differences(engine, options.folder)
    for each in found:
        print(json.dumps({"event": "difference", **vars(each)}) if options.json else _line(each))
    if options.json:
        print(json.dumps({"event": "checked", "differences": len(found)}))
    elif not found:
        print("The roll-ups are what the records come to.")
    return 1 if found else 0


def _print_contents(engine: "Engine", options: argparse.Namespace) -> int:
    from modelyard.ledger.contents import DAY_MS, read
    from modelyard.ledger.database import now_ms

    for each in read(engine, options.release, round(now_ms() - options.days * DAY_MS)):
        print(json.dumps(each, ensure_ascii=False))
    return 0


def _line(difference: "Difference") -> str:
    place, records, rollup = difference.place, difference.records, difference.rollup
    hour = datetime.fromtimestamp(place["hour_s"], UTC).strftime("%Y-%m-%d %H:00")
    names = ("organisation_id", "project_id", "key_id", "release", "version")
    own = "  ".join(str(place[name]) for name in names)
    apart = [
        f"{name} {records[name]:,}, rolled up as {rollup[name]:,}"
        for name in records
        if records[name] != rollup[name]
    ]
    return f"{hour}  {own}: {'; '.join(apart)}"


def _rebuilt(engine: "Engine", options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from modelyard.ledger.usage import rebuild

    count = rebuild(_standing(engine), options.folder)
    return {"event": "rebuilt", "rollups": count}, f"{count:,} roll-ups were added up anew."


def _migrated(engine: "Engine", options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger import revisions

    revision, known = options.to or revisions.LATEST, revisions.known()
    if revision not in known:
        raise SettingInvalid(
            f"There is no revision {revision!r} of the tables; there are {', '.join(known)}."
        )
    revisions.move(engine, revision)
    return {"event": "migrated", "revision": revision}, f"The tables are of revision {revision}."


def _copied(engine: "Engine", options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from modelyard.ledger import backup

    if options.action == "backup":
        done, what = backup.back_up(_with_tables(engine), options.file), "are in"
    else:
        done, what = backup.restore(engine, options.file), "were restored from"
    told = {
        "event": options.action,
        "file": str(options.file),
        "revision": done.revision,
        "rows": {name: sum(part.rows for part in own) for name, own in done.tables.items()},
    }
    sentence = f"{done.rows:,} rows of {len(done.tables)} tables {what} {options.file}."
    return told, sentence


def _compacted(engine: "Engine", options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger.journal import compact

    if not (0 <= options.keep_days <= MOST_DAYS and 0 <= options.answers_hours <= 24 * MOST_DAYS):
        raise SettingInvalid(
            f"--keep-days takes 0 to {MOST_DAYS:,}, and --answers-hours 0 to {24 * MOST_DAYS:,}; "
            f"got {options.keep_days:,} and {options.answers_hours:,}."
        )
    done = vars(
        compact(_standing(engine), options.folder, options.keep_days, options.answers_hours)
    )
    return {"event": "compacted", **done}, _sentence(done, options.folder)


def _sentence(done: Mapping[str, int], folder: Path) -> str:
    return (
        f"{done['records']:,} records went into {done['files']:,} new files of {folder}; deleted "
        f"were {done['answers']:,} kept answers, {done['counters']:,} counters, "
        f"{done['holds']:,} holds, and rows and answers of {done['contents']:,} requests."
    )


def _standing(engine: "Engine") -> "Engine":
    """The database, which must have tables of this revision; raises SettingInvalid."""
    from modelyard.ledger.revisions import ready

    return ready(_with_tables(engine))


def _with_tables(engine: "Engine") -> "Engine":
    """The database, which must have tables; raises SettingInvalid."""
    from modelyard.core.errors import SettingInvalid
    from modelyard.ledger.database import version

    if version(engine) is None:
        raise SettingInvalid(
            f"There is no ledger at {engine.url}; `modelyard ledger migrate` makes its tables, as "
            "the first `modelyard customer add` does."
        )
    return engine
