"""Make a project folder with a commented modelyard.toml, from a sample or your own rows."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.cli.project_template import Proposed
    from modelyard.core.events import Events
    from modelyard.data.proposal import Proposal

MOST_TOLD = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `new`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to make")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--sample", metavar="NAME", help="rows to try it on; see `samples`")
    source.add_argument(
        "--rows",
        metavar="FILE",
        type=Path,
        help="your own rows: csv, tsv, jsonl, parquet, or a folder of texts or images by class",
    )


def main(options: argparse.Namespace) -> int:
    """Make the folder; nothing that is there is overwritten."""
    from modelyard.cli import screen
    from modelyard.cli.project_template import project_text
    from modelyard.core import PROJECT_FILE
    from modelyard.core.errors import SettingInvalid

    file = options.folder / PROJECT_FILE
    if file.exists():
        raise SettingInvalid(f"{file} is there already; choose another folder or remove it.")
    with screen.events(as_json=False) as events:
        if options.sample:
            proposed = _from_sample(options.sample, options.folder, events)
        else:
            proposed = _from_rows(options.rows, options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(project_text(options.folder.resolve().name, proposed), encoding="utf-8")
    print(f"{file}: {_said(proposed.proposal)}")
    print(f"  {proposed.proposal.why}")
    print(f"next     modelyard plan {options.folder}\n         modelyard run {options.folder}")
    return 0


def _said(proposal: "Proposal") -> str:
    """What goes in and what is predicted, in short."""
    inputs = list(map(repr, proposal.inputs))
    more = f" and {len(inputs) - MOST_TOLD} more" if len(inputs) > MOST_TOLD else ""
    some = f"input{'s' if len(inputs) > 1 else ''} {', '.join(inputs[:MOST_TOLD])}{more}"
    return f"{some}, target {proposal.target!r}"


def _from_sample(name: str, folder: Path, events: "Events") -> "Proposed":
    from modelyard.cli.project_template import Proposed
    from modelyard.data import samples

    sample = samples.find(name)
    rows = samples.materialise(name, folder, events)
    proposal = replace(sample.proposal, why=sample.description)
    return Proposed(rows.name, sample.licence, proposal)


def _from_rows(rows: Path, folder: Path) -> "Proposed":
    import os

    from modelyard.cli.project_template import Proposed
    from modelyard.data.proposal import propose

    where = Path(os.path.relpath(rows.resolve(), folder.resolve()))
    return Proposed(where.as_posix(), "unknown", propose(rows))
