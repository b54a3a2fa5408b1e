"""Make a trained model small and stop there; or show its rungs: accuracy, speed, size, cost."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from modelyard.cli.options import add_json, add_project

MEGA = 1_000_000
HEAD = ("rung", "measure", "lost", "95 %", "rows/s", "p95 ms", "MB", "memory", "a million")
Json = Mapping[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `compress`."""
    add_project(parser)
    parser.add_argument("--show", action="store_true", help="run nothing, show what stands")
    add_json(parser, "one JSON object a line; the last one holds every rung")


def main(options: argparse.Namespace) -> int:
    """Run a project as far as `compress`, unless it is only to be shown; then print the rungs."""
    from modelyard.core.project_file import read_project
    from modelyard.doors import build_until, rungs_of

    if not options.show:
        from modelyard.cli import screen

        with screen.events(as_json=options.json) as events:
            build_until("compress", options.project, options.set, events)
    found = rungs_of(read_project(options.project, options.set))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for line in _lines(found):
        print(line)
    return 0


def _lines(found: Json) -> list[str]:
    """A sentence, and a row for each rung; the chosen one has a star."""
    lines = [f"{found['name']}: {found['choice']}, because {found['why']}"]
    if not found["stands"]:
        lines.append("Made for another state of the project; `modelyard compress` makes it anew.")
    if not found["rungs"]:
        return lines
    rows = [HEAD, *(_cells(rung) for rung in found["rungs"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    for number, row in enumerate(rows):
        chosen = number > 0 and row[0] == found["choice"]
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        lines.append(("* " if chosen else "  ") + "  ".join(cells).rstrip())
    lines.append(
        f"{found['measure']} on {found['rungs'][0]['rows']:,} validation rows; lost in hundredths, "
        "beside the network itself on the same rows"
    )
    if found["rungs"][0]["rows_per_s"]:
        lines.append(
            f"speed on {found['cores']} cores in turn; a million rows where a core costs "
            f"{found['core_hour']:g} an hour"
        )
    return lines


def _cells(rung: Json) -> tuple[str, ...]:
    from modelyard.stages.report.numbers import cost

    rate, late, memory = (rung[n] for n in ("rows_per_s", "latency_p95_ms", "memory_bytes"))
    paired, price = rung["difference"], rung["cost_of_million"]
    return (
        rung["name"],
        f"{rung['value']:.4g}",
        f"{100 * rung['loss']:.2f}",
        f"{-100 * paired['high']:.1f} to {-100 * paired['low']:.1f}" if paired else "–",
        f"{rate['value']:,.0f}" if rate else "–",
        f"{late['value']:.1f}" if late else "–",
        f"{rung['bytes'] / MEGA:,.1f}",
        f"{memory / MEGA:,.0f}" if memory else "–",
        cost(price["value"]) if price else "–",
    )
