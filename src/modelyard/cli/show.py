"""Show what stands of a project: stages, measures, report and release."""

import argparse
import json

from modelyard.cli.options import add_json, add_project


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `show`."""
    add_project(parser)
    add_json(parser, "the same object that `run --json` ends with")


def main(options: argparse.Namespace) -> int:
    """Print what stands."""
    from modelyard.core.project_file import read_project
    from modelyard.doors import result

    found = result(read_project(options.project, options.set))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    print(f"{found['name']} {found['version']}")
    for stage in found["stages"]:
        state = stage["digest"][:12] if stage["stands"] else "to run"
        print(f"  {stage['stage']:<9} {state:<13} {stage['why']}")
    for line in headline(found["report"]):
        print(line)
    print(f"report   {found['report'] or 'none yet'}\nrelease  {found['release'] or 'none yet'}")
    return 0


def headline(report: str | None) -> list[str]:
    """The first sentences of a report, if there is one."""
    from pathlib import Path

    if report is None:
        return []
    told = json.loads(Path(report).with_suffix(".json").read_text(encoding="utf-8"))
    return list(told["headline"])
