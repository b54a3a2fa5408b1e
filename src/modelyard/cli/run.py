"""Run what does not stand yet, up to the signed release."""

import argparse
import json

from modelyard.cli.options import add_json, add_project
from modelyard.core.errors import RequirementFailed


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    add_project(parser)
    add_json(parser, "one JSON object a line; the last one holds `release`, its folder")


def main(options: argparse.Namespace) -> int:
    """Run a project; events go to the screen, or as lines of JSON to standard output."""
    from modelyard.cli import screen
    from modelyard.core.project_file import read_project
    from modelyard.doors import build, result

    with screen.events(as_json=options.json) as events:
        try:
            build(options.project, options.set, events)
        except RequirementFailed:
            if options.json:
                _print_result(result(read_project(options.project, options.set)))
            raise
    found = result(read_project(options.project, options.set))
    if options.json:
        _print_result(found)
    else:
        print(f"release  {found['release']}\nreport   {found['report']}")
        print(f"next     modelyard serve --dev {found['release']}")
    return 0


def _print_result(found: dict[str, object]) -> None:
    print(json.dumps(found, ensure_ascii=False), flush=True)
