"""Predict a file of rows with a release: csv, tsv, jsonl or parquet, in and out; or conll, in."""

import argparse
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from modelyard.cli.options import add_candidates, add_release

if TYPE_CHECKING:
    from modelyard.cli.workers import Numbered, Work
    from modelyard.core.events import Progress
    from modelyard.data.files import Opened, Record
    from modelyard.data.parts import Parts

PART_ROWS = 2048
MOST_PROCESSES = 64
DEFAULT_PROCESSES = 4
"""At most, where nothing is said: each holds the network once."""


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
    parser.add_argument(
        "--processes",
        type=int,
        default=min(len(os.sched_getaffinity(0)), DEFAULT_PROCESSES),
        metavar="N",
        help="processes that answer rows, and share the cores "
        f"(default: one for each core, at most {DEFAULT_PROCESSES})",
    )


def main(options: argparse.Namespace) -> int:
    """Stream rows through the release; the output appears whole or not at all."""
    from modelyard.cli.screen import events
    from modelyard.core.errors import RowsUnreadable
    from modelyard.data.files import open_filled
    from modelyard.data.parts import begun
    from modelyard.doors import release_folder

    out = options.out or options.file.with_suffix(f".predictions{options.file.suffix}")
    _refuse(options, out)
    options.release = release_folder(options.release)
    opened = open_filled(options.file, options.encoding)
    _tell_encoding(opened)
    with events(as_json=False) as tell, begun(out, _causes(options), tell) as parts:
        with closing(_answered(opened, options, out, parts)) as work:
            for progress in work:
                tell(progress)
        if parts.refused == parts.rows:
            raise RowsUnreadable(
                f"None of the {parts.rows:,} rows could be answered: {parts.first_problem}."
            )
        parts.publish()
    told = f"{parts.rows:,} rows to {out}, {parts.refused:,} of them without an answer"
    print(told, file=sys.stderr)
    return 0


def _refuse(options: argparse.Namespace, out: Path) -> None:
    from modelyard.core.errors import SettingInvalid
    from modelyard.data.files import refuse_place

    refuse_place(out)
    if out.resolve() == options.file.resolve():
        raise SettingInvalid(f"--out {out} is the file of rows itself; give another file.")
    if not 1 <= options.processes <= MOST_PROCESSES:
        raise SettingInvalid(f"--processes takes 1 to {MOST_PROCESSES}; got {options.processes}.")


def _causes(options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on; a killed run is gone on with where none of it has changed."""
    from modelyard import __version__
    from modelyard.doors import signed_digest

    own = options.candidates
    found = options.file.stat()
    return {
        "release": signed_digest(options.release, options.public_key),
        "set of candidates": signed_digest(own, options.public_key) if own else None,
        "file of rows": [str(options.file.resolve()), found.st_size, found.st_mtime_ns],
        "encoding": options.encoding,
        "version of modelyard": f"{__version__}, {PART_ROWS} rows a part",
    }


def _answered(
    opened: "Opened", options: argparse.Namespace, out: Path, parts: "Parts"
) -> "Generator[Progress, None, None]":
    """Answer the parts that are not done."""
    from modelyard.cli.workers import answered

    reading = Reading(opened, parts)
    first = list(islice(reading.batches, 2))
    processes = options.processes if len(first) > 1 else 1
    work = _work(opened, options, out, parts.folder, first[0], processes)
    with closing(answered(reading.left(first), work, processes)) as found:
        for part in found:
            parts.add(part)
            yield reading.progress()


def _work(
    opened: "Opened",
    options: argparse.Namespace,
    out: Path,
    folder: Path,
    first: "Sequence[Record]",
    processes: int,
) -> "Work":
    from modelyard.cli.answers import columns_of
    from modelyard.cli.workers import Work
    from modelyard.doors import answer_fields

    return Work(
        release=options.release,
        public_key=options.public_key,
        candidates=options.candidates,
        threads=max(1, len(os.sched_getaffinity(0)) // processes),
        counted_in=opened.counted_in,
        beside=options.file.parent,
        folder=folder,
        out=out,
        columns=tuple(columns_of(first, answer_fields(options.release))),
    )


class Reading:
    """Reads a file part by part, and tells how far the work has come and what is left."""

    def __init__(self, opened: "Opened", parts: "Parts"):
        self.batches = self._counted(opened.batches(PART_ROWS))
        self._extent = opened.extent
        self._parts = parts
        self._rows = 0
        self._rows_before, self._began_s = parts.rows, monotonic()

    def _counted(self, batches: "Iterator[list[Record]]") -> "Iterator[list[Record]]":
        for records in batches:
            self._rows += len(records)
            yield records

    def left(self, first: "Sequence[list[Record]]") -> "Iterator[Numbered]":
        """The parts that are not done, with their numbers; `first` have been read already."""
        for number, records in enumerate(chain(first, self.batches)):
            if number not in self._parts.done:
                yield number, records

    def progress(self) -> "Progress":
        """Rows done, of as many as the file has by the share that has been read of it."""
        from modelyard.core.events import Progress

        done, share = self._parts.rows, self._extent.share
        total = max(done, round(self._rows / share)) if share else done
        rate = (done - self._rows_before) / (monotonic() - self._began_s)
        left_s = (total - done) / rate if share else None
        return Progress("predict", done, total, "rows", left_s, {"rows_per_s": rate})


def _tell_encoding(opened: "Opened") -> None:
    if opened.encoding and opened.encoding.confidence < 1:
        told = f"{opened.encoding.name}, for {opened.encoding.why}"
        print(f"encoding: {told}; where letters are wrong, give --encoding", file=sys.stderr)
