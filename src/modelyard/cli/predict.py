"""Predict a file of rows with a release: csv, tsv, jsonl or parquet, in and out; or conll, in."""

import argparse
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_candidates, add_release

if TYPE_CHECKING:
    from modelyard.data.files import Opened, Record
    from modelyard.runtime.runtime import Runtime

BATCH_ROWS = 2048
ERROR = "error"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    add_release(parser)
    add_candidates(parser)
    parser.add_argument("file", type=Path, help="rows: csv, tsv, jsonl or parquet")
    parser.add_argument(
        "--encoding", default="auto", help="encoding of csv, tsv and jsonl (default: detected)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where the answers go; the suffix says the form (default: FILE.predictions.SUFFIX)",
    )


def main(options: argparse.Namespace) -> int:
    """Stream rows through the release; the output appears whole or not at all."""
    from modelyard.core.errors import RowsUnreadable, SettingInvalid
    from modelyard.data.files import Writer, open_filled
    from modelyard.doors import open_release

    out = options.out or options.file.with_suffix(f".predictions{options.file.suffix}")
    if out.resolve() == options.file.resolve():
        raise SettingInvalid(f"--out {out} is the file of rows itself; give another file.")
    runtime = open_release(options.release, options.public_key, options.candidates)
    opened = open_filled(options.file, options.encoding)
    _tell_encoding(opened)
    done, refused, first = 0, 0, None
    with Writer(out) as writer:
        for records in opened.batches(BATCH_ROWS):
            answered = list(answer(runtime, records, opened.counted_in, options.file.parent))
            writer.write(answered)
            done, first = done + len(answered), first or answered[0][ERROR]
            refused += sum(row[ERROR] is not None for row in answered)
            print(f"\r{done:,} rows", end="", file=sys.stderr, flush=True)
        if refused == done:
            raise RowsUnreadable(f"None of the {done:,} rows could be answered: {first}.")
    print(f"\r{done:,} rows to {out}, {refused:,} of them without an answer", file=sys.stderr)
    return 0


def _tell_encoding(opened: "Opened") -> None:
    if opened.encoding and opened.encoding.confidence < 1:
        told = f"{opened.encoding.name}, for {opened.encoding.why}"
        print(f"encoding: {told}; where letters are wrong, give --encoding", file=sys.stderr)


def readable(
    runtime: "Runtime", records: "list[Record]", counted_in: str, beside: Path = Path()
) -> list[dict[str, Any]]:
    """The rows that can be answered, of all that `answer` would take."""
    asked = [_read(runtime, record, beside) for record in records]
    return _without(asked, _problems(runtime, asked, counted_in))


def _without(records: "list[Record]", problems: "Iterable[str | None]") -> list[dict[str, Any]]:
    return [r.values for r, problem in zip(records, problems, strict=True) if problem is None]


def answer(
    runtime: "Runtime", records: "list[Record]", counted_in: str, beside: Path = Path()
) -> Iterator[dict[str, Any]]:
    """Each row with its answer; a row that cannot be answered says why and harms no other.

    Paths in the rows start from `beside` where they are relative. A column of the row that is
    named like one of the answer's comes out as `given_` and its name.
    Raises ColumnMissing where rows can be read and none has the release's input column.
    """
    asked = [_read(runtime, record, beside) for record in records]
    problems = list(_problems(runtime, asked, counted_in))
    answers = iter(runtime.predict(_without(asked, problems)))
    empty = dict.fromkeys((*runtime.answer_fields, ERROR))
    for record, problem in zip(records, problems, strict=True):
        found = next(answers) if problem is None else {}
        yield {**_own(record, empty), **empty, **found, ERROR: problem}


def _read(runtime: "Runtime", record: "Record", beside: Path) -> "Record":
    """A row of which values that are the paths of files are those files."""
    from dataclasses import replace

    from modelyard import inputs

    named = [each for each in runtime.spec.inputs if inputs.find(each.kind).is_file]
    own = {
        each.column: inputs.find(each.kind).read(record.values[each.column], beside)
        for each in named
        if each.column in record.values
    }
    return replace(record, values={**record.values, **own}) if own else record


def _problems(runtime: "Runtime", records: "list[Record]", counted_in: str) -> Iterator[str | None]:
    """Why each row has no answer, or None."""
    columns = runtime.columns
    readable = [record.values for record in records if not record.problem]
    known = {name for name in columns.names if any(name in row for row in readable)}
    for record in records:
        lacks = [name for name in columns.names if name in known and name not in record.values]
        if record.problem:
            yield f"{counted_in} {record.number}: {record.problem}"
        elif lacks:
            yield f"the row lacks the column {lacks[0]!r}"
        else:
            yield runtime.problem(record.values)


def _own(record: "Record", taken: Container[str]) -> dict[str, Any]:
    """The row's columns, renamed where the answer has one of that name."""
    from modelyard.data.files import UNNAMED

    row = {n: v for n, v in record.values.items() if not (record.problem and n in UNNAMED)}
    own = {}
    for name, value in row.items():
        kept = name
        while kept in taken or (kept != name and kept in row):
            kept = f"given_{kept}"
        own[kept] = value
    return own
