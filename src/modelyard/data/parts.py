"""Parts: rows written as numbered files that a killed run leaves, joined to one file at the end.

    OUT.parts/lock                  held while a run writes
    OUT.parts/<key>/causes.json     what the rows are made of; the key is its digest
    OUT.parts/<key>/done.jsonl      a line for each part that is whole
    OUT.parts/<key>/part-000012     a part

A part counts once its line is there. A worker of a killed run that is still writing cannot harm
another run: it writes the same part, or into a folder of other causes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from modelyard.core import digest
from modelyard.core.errors import BadInput, SettingInvalid
from modelyard.core.events import Events, Noted
from modelyard.data.files import (
    WRITERS,
    Row,
    form_of,
    no_parquet,
    refuse_place,
    table_of,
    typed,
)

CAUSES, DONE, LOCK = "causes.json", "done.jsonl", "lock"
BLOCK_BYTES = 1 << 20
KEY_DIGITS = 16


@dataclass(frozen=True)
class Part:
    """A part that is whole: its place from 0, its rows, and those of them without an answer."""

    number: int
    rows: int
    refused: int
    first_problem: str | None
    size_bytes: int


def path_of(folder: Path, number: int) -> Path:
    """Where a part is, or will be."""
    return folder / f"part-{number:06d}"


def write_part(
    folder: Path, number: int, out: Path, rows: Sequence[Row], columns: Sequence[str]
) -> int:
    """Write the rows of a part for `out`, whole or not at all; its bytes.

    `columns` are those of the whole file, where its form has a header. Raises SettingInvalid.
    """
    path = path_of(folder, number)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    form = FORMS[form_of(out)](draft, columns if number else ())
    try:
        form.write(rows)
    finally:
        form.close()
    size = draft.stat().st_size
    draft.rename(path)
    return size


class Parts:
    """The parts of one file; `done` has those that are whole, by number.

    `rows` counts theirs, and `refused` those of them that have no answer.
    """

    def __init__(self, out: Path, folder: Path):
        self.folder = folder
        self._out = out
        self._join = _Tables() if form_of(out) == ".parquet" else _Bytes()
        self.done: dict[int, Part] = {}
        self.rows = self.refused = 0
        for part in _standing(folder):
            self._take(part)

    def _take(self, part: Part) -> None:
        self._join.add(path_of(self.folder, part.number))
        self.done[part.number] = part
        self.rows += part.rows
        self.refused += part.refused

    @property
    def first_problem(self) -> str | None:
        """Why the first row without an answer has none."""
        in_order = (self.done[number].first_problem for number in sorted(self.done))
        return next(filter(None, in_order), None)

    def add(self, part: Part) -> None:
        """A part is whole; raises SettingInvalid where it does not go into one file with others."""
        self._take(part)
        with (self.folder / DONE).open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(asdict(part))}")  # a line that a kill cut off ends here

    def publish(self) -> None:
        """Join all parts in their order; the file appears whole, by one rename."""
        draft = self.folder / "joined"
        self._join.join([path_of(self.folder, number) for number in sorted(self.done)], draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(self._out)


@contextmanager
def begun(out: Path, causes: Mapping[str, Any], events: Events) -> Iterator[Parts]:
    """The parts of `out`: those that a killed run with the same causes left, or none.

    They are removed at the end of the `with` block, and kept where it is left by an error that
    the same input would not run into again. Raises SettingInvalid where another process writes
    the same file.
    """
    refuse_place(out)
    place = out.with_name(f"{out.name}.parts")
    folder = place / digest.of_json(causes)[:KEY_DIGITS]
    with _locked(place, out):
        _put_away_others(place, folder, causes, events)
        folder.mkdir(exist_ok=True)
        (folder / CAUSES).write_text(json.dumps(causes), encoding="utf-8")
        parts = Parts(out, folder)
        if parts.done:
            events(Noted(f"going on from {parts.rows:,} rows that an interrupted run left"))
        try:
            yield parts
        except BadInput:
            _remove(place, folder)
            raise
        except BaseException:
            told = f"{parts.rows:,} rows are kept in {place}; the same command goes on from there"
            events(Noted(told))
            raise
        _remove(place, folder)


def _remove(place: Path, folder: Path) -> None:
    """Remove a run's parts; the lock goes last, so that nobody begins in between."""
    shutil.rmtree(folder)
    (place / LOCK).unlink()
    try:
        place.rmdir()
    except OSError:  # something else is in it
        return


def _put_away_others(place: Path, folder: Path, causes: Mapping[str, Any], events: Events) -> None:
    for file in place.glob(f"*/{CAUSES}"):
        if file.parent == folder:
            continue
        other = _read_causes(file)
        changed = [name for name, value in causes.items() if other.get(name) != value]
        told = " and ".join(changed)
        events(Noted(f"starting afresh, as an interrupted run had another {told}"))
        shutil.rmtree(file.parent)


def _read_causes(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except ValueError:  # cut off by a kill
        return {}


def _standing(folder: Path) -> Iterator[Part]:
    """The parts that are whole, each once."""
    done = folder / DONE
    found: dict[int, Part] = {}
    for line in done.read_bytes().splitlines() if done.is_file() else ():
        try:
            part = Part(**json.loads(line))
        except (ValueError, TypeError):  # cut off by a kill, or empty
            continue
        path = path_of(folder, part.number)
        if path.is_file() and path.stat().st_size == part.size_bytes:
            found[part.number] = part
    yield from found.values()


@contextmanager
def _locked(place: Path, out: Path) -> Iterator[None]:
    lock = place / LOCK
    while True:
        place.mkdir(exist_ok=True)
        try:
            file = lock.open("a+", encoding="utf-8")
        except FileNotFoundError:  # another run has just ended and removed the folder
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel ends it with us
            except BlockingIOError:
                file.seek(0)
                raise SettingInvalid(
                    f"Another run (process {file.read()}) is writing {out}; wait until it is done, "
                    "or name another file with --out."
                ) from None
            if not _is_still_there(lock, os.fstat(file.fileno())):
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            return


def _is_still_there(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), opened)
    except FileNotFoundError:
        return False


class _Bytes:
    """Parts that make one file end to end."""

    def add(self, part: Path) -> None:
        """Nothing is to be known of a part."""

    def join(self, parts: Sequence[Path], out: Path) -> None:
        """Write one after the other."""
        with out.open("wb") as file:
            for part in parts:
                with part.open("rb") as own:
                    shutil.copyfileobj(own, file, BLOCK_BYTES)


class _Tables:
    """Parts that are Arrow tables, and make one Parquet file with a type for each column.

    A part's own types may be narrower: a column may have no value in it, or whole numbers alone.
    """

    def __init__(self) -> None:
        self._schema: Any = None

    def add(self, part: Path) -> None:
        """Raise SettingInvalid now where no type is wide enough."""
        schema = _schema_of(part)
        self._schema = _wider(self._schema, schema) if self._schema else schema

    def join(self, parts: Sequence[Path], out: Path) -> None:
        """Write a row group for each part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = typed(reduce(_wider, map(_schema_of, parts)))
        try:
            with pq.ParquetWriter(out, schema) as writer:
                for part in parts:
                    writer.write_table(_cast(part, schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise no_parquet(error) from None


def _schema_of(part: Path) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(part)) as file:
        return pa.ipc.open_file(file).schema


def _wider(one: Any, other: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise no_parquet(error) from None


def _cast(part: Path, schema: Any) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(part)) as file:
        table = pa.ipc.open_file(file).read_all()
    columns = [
        table[each.name].cast(each.type)
        if each.name in table.schema.names
        else pa.nulls(len(table), each.type)
        for each in schema
    ]
    return pa.table(columns, schema=schema)


class _ArrowForm:
    def __init__(self, path: Path, columns: Sequence[str] = ()):
        self._path = path

    def write(self, rows: Sequence[Row]) -> None:
        import pyarrow as pa

        table = table_of(rows)
        with pa.OSFile(str(self._path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)

    def close(self) -> None:
        """The file is closed already."""


FORMS: dict[str, Any] = {**WRITERS, ".parquet": _ArrowForm}
