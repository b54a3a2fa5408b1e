"""Predict a file of rows with a release: csv, tsv, jsonl or parquet, in and out."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_release

if TYPE_CHECKING:
    from modelyard.runtime.runtime import Runtime

BATCH_ROWS = 2048
EMPTY = {"label": None, "score": None, "scores": None, "error": None}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    add_release(parser)
    parser.add_argument("file", type=Path, help="rows: csv, tsv, jsonl or parquet")
    parser.add_argument(
        "--out",
        type=Path,
        help="where the answers go; the suffix says the form (default: FILE.predictions.SUFFIX)",
    )


def main(options: argparse.Namespace) -> int:
    """Stream rows through the release; the output appears whole or not at all."""
    from modelyard.core.errors import SettingInvalid
    from modelyard.data.files import Writer, stream
    from modelyard.doors import open_release

    out = options.out or options.file.with_suffix(f".predictions{options.file.suffix}")
    if out.resolve() == options.file.resolve():
        raise SettingInvalid(f"--out {out} is the file of rows itself; give another file.")
    runtime = open_release(options.release, options.public_key)
    done = refused = 0
    with Writer(out) as writer:
        for rows in stream(options.file, BATCH_ROWS):
            answered = list(answer(runtime, rows))
            writer.write(answered)
            done += len(answered)
            refused += sum(row["error"] is not None for row in answered)
            print(f"\r{done:,} rows", end="", file=sys.stderr, flush=True)
    print(f"\r{done:,} rows to {out}, {refused:,} of them without an answer", file=sys.stderr)
    return 0


def answer(runtime: "Runtime", rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each row with its answer; a row that cannot be answered says why and harms no other.

    A column of the row that is named like one of the answer's comes out as `given_` and its name.
    Raises ColumnMissing where none of the rows has the release's input column.
    """
    some_have_it = any(runtime.column in row for row in rows)
    lacks = f"the row lacks the column {runtime.column!r}"
    problems = [
        lacks if some_have_it and runtime.column not in row else runtime.problem(row)
        for row in rows
    ]
    good = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
    answers = iter(runtime.predict(good))
    for row, problem in zip(rows, problems, strict=True):
        found = next(answers) if problem is None else {}
        yield {**_own(row), **EMPTY, **found, "error": problem}


def _own(row: dict[str, Any]) -> dict[str, Any]:
    own = {}
    for name, value in row.items():
        kept = name
        while kept in EMPTY or (kept != name and kept in row):
            kept = f"given_{kept}"
        own[kept] = value
    return own
