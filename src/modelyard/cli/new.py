"""Make a project folder with a commented modelyard.toml, from a sample or your own rows."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.cli.project_template import Proposed


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
    from modelyard.cli.project_template import Proposed, project_text
    from modelyard.core import PROJECT_FILE
    from modelyard.core.errors import SettingInvalid

    file = options.folder / PROJECT_FILE
    if file.exists():
        raise SettingInvalid(f"{file} is there already; choose another folder or remove it.")
    with screen.events(as_json=False) as events:
        if options.sample:
            from modelyard.data import samples

            sample = samples.materialise(options.sample, options.folder, events)
            proposed = Proposed(
                rows=sample.file.name,
                input_column=sample.input_column,
                target_column=sample.target_column,
                backbone=sample.backbone,
                rows_license=sample.licence,
                why=sample.description,
            )
        else:
            proposed = _from_rows(options.rows, options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(project_text(options.folder.resolve().name, proposed), encoding="utf-8")
    print(f"{file}: input {proposed.input_column!r}, target {proposed.target_column!r}")
    print(f"  {proposed.why}")
    print(f"next     modelyard plan {options.folder}\n         modelyard run {options.folder}")
    return 0


def _from_rows(rows: Path, folder: Path) -> "Proposed":
    import os

    from modelyard.cli.project_template import Proposed
    from modelyard.data.source import propose

    found = propose(rows)
    where = Path(os.path.relpath(rows.resolve(), folder.resolve()))
    return Proposed(
        rows=where.as_posix(),
        input_column=found.input_column,
        target_column=found.target_column,
        backbone=found.backbone,
        rows_license="unknown",
        why=found.why,
        kind=found.kind,
    )
