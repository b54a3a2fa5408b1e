"""Files of rows: csv, tsv, jsonl, parquet and conll, read in batches, told by suffix; and written.

Needs the standard library and pyarrow, so that a serving environment has it; an encoding other
than UTF-8 or UTF-16 is detected where charset-normalizer is installed.
"""

import base64
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from modelyard.core.errors import RowsEmpty, RowsMissing, RowsUnreadable, SettingInvalid
from modelyard.data import conll
from modelyard.data.encodings import Encoding, choose
from modelyard.data.extent import Extent

Row = Mapping[str, Any]
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SUFFIXES = ".csv, .tsv, .jsonl, .ndjson or .parquet"
TAGGED = (".conll", ".bio", ".iob")
BATCH_BYTES = 1 << 24
PENDING_BATCHES = 16
PLAIN = (str, float, int, type(None))
LONGEST_PATH = 4000
ALL_FIELDS, LINE = UNNAMED = ("(all fields)", "(line)")
"""Where a record with a problem keeps what has no column."""


class Record(NamedTuple):
    """One row of a source: its number from 1 (a line, where the source has lines), its values.

    `problem` says why the values cannot be used as they are. (A tuple, as there are millions.)
    """

    number: int
    values: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True)
class Opened:
    """A file of rows, opened; `records` can be gone through once."""

    records: Iterator[Record]
    counted_in: str
    """What a record's number counts: line or row."""
    encoding: Encoding | None = None
    delimiter: str | None = None
    tags: str | None = None
    """The scheme of the tags, where the rows are tagged tokens."""
    extent: Extent = field(default_factory=Extent)

    def batches(self, batch_rows: int, batch_bytes: int = BATCH_BYTES) -> Iterator[list[Record]]:
        """The records in batches, in their order; a batch of long values has fewer rows."""
        batch: list[Record] = []
        size = 0
        for record in self.records:
            batch.append(record)
            size += sum(len(v) for v in record.values.values() if isinstance(v, str | bytes))
            if len(batch) == batch_rows or size >= batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def open_rows(path: Path, encoding: str = "auto") -> Opened:
    """Open a file of rows; raises RowsMissing, RowsEmpty, RowsUnreadable."""
    suffix = form_of(path)
    if not path.is_file():
        raise RowsMissing(
            f"There is no file {path}; check its name (data.rows is relative to the project)."
        )
    if path.stat().st_size == 0:
        raise RowsEmpty(f"{path} is empty; it needs a header line and rows.")
    extent = Extent()
    if suffix == ".parquet":
        return Opened(_parquet_records(path, extent), "row", extent=extent)
    chosen = choose(path, encoding)
    if suffix in TAGGED:
        form = conll.form_of(path, chosen.name)
        records = _tagged_records(path, chosen.name, form, extent)
        return Opened(records, "line", chosen, tags=form.scheme, extent=extent)
    if suffix == ".jsonl":
        return Opened(_jsonl_records(path, chosen.name, extent), "line", chosen, extent=extent)
    delimiter = "\t" if suffix == ".tsv" else _delimiter(path, chosen.name)
    records = _csv_records(path, chosen.name, delimiter, extent)
    return Opened(records, "line", chosen, delimiter, extent=extent)


def form_of(path: Path) -> str:
    """The form that a file's suffix stands for; raises RowsUnreadable for one nobody knows."""
    suffix = path.suffix.lower().replace(".ndjson", ".jsonl")
    if suffix not in (".csv", ".tsv", ".jsonl", ".parquet", *TAGGED):
        raise RowsUnreadable(
            f"{path} has the suffix {path.suffix or '(none)'}, which is no form of rows known "
            f"here; save the rows as {SUFFIXES}, or tokens with their tags as {TAGGED[0]}."
        )
    return suffix


def is_file(base: Path, name: str) -> bool:
    """Whether a text is the path of a file, from `base` where it is relative."""
    try:
        return len(name) <= LONGEST_PATH and (base / name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def open_filled(path: Path, encoding: str = "auto") -> Opened:
    """Open a file that has rows: raises what open_rows raises, and RowsEmpty for a header alone."""
    opened = open_rows(path, encoding)
    first = next(opened.records, None)
    if first is None:
        raise RowsEmpty(f"{path} holds no rows; add rows below its header.")
    return replace(opened, records=chain([first], opened.records))


def _delimiter(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, newline="") as file:
        header = file.readline()
    return "," if "," in header else max(DELIMITERS, key=lambda d: (header.count(d), d == ","))


def _csv_records(path: Path, encoding: str, delimiter: str, extent: Extent) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # long texts are judged later, by length
    with extent.open(path, encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = _header(path, reader)
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Record(number, {}, _csv_problem(path, number, error))
                continue
            if fields:
                yield _csv_record(number, header, fields)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(filter(None, reader), None)
    except csv.Error as error:
        raise RowsUnreadable(f"{path}: the header line cannot be read ({error}).") from None
    if header is None:
        raise RowsEmpty(f"{path} has no header line and no rows.")
    _refuse_twice(path, header)
    return header


def _refuse_twice(path: Path, header: Sequence[str]) -> None:
    twice = sorted(name for name, times in Counter(header).items() if times > 1)
    if twice:
        raise RowsUnreadable(f"{path} has the column {twice[0]!r} twice; rename one of them.")


def _csv_problem(path: Path, number: int, error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        raise RowsUnreadable(
            f"{path}, line {number}: a quotation mark opens here and is never closed; close it, "
            'or double it ("") where it belongs to the text.'
        )
    return f"the quotation marks do not match ({error})"


def _csv_record(number: int, header: list[str], fields: list[str]) -> Record:
    values = dict(zip(header, fields, strict=False))
    if len(fields) < len(header) or any(fields[len(header) :]):
        problem = f"it has {len(fields)} fields where the header has {len(header)}"
        return Record(number, values | {ALL_FIELDS: fields}, problem)
    return Record(number, values)


def _jsonl_records(path: Path, encoding: str, extent: Extent) -> Iterator[Record]:
    with extent.open(path, encoding, newline="") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _jsonl_record(number, line)


class _Twice(Exception):
    """A JSON object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice(next(key for key, times in Counter(k for k, _ in pairs).items() if times > 1))
    return values


def _jsonl_record(number: int, line: str) -> Record:
    try:
        values = json.loads(line, object_pairs_hook=_once)
    except _Twice as error:
        return Record(number, {LINE: line[:1000]}, f"it has the key {error.args[0]!r} twice")
    except RecursionError:
        return Record(number, {LINE: line[:1000]}, "its JSON is nested too deeply")
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return Record(number, {LINE: line[:1000]}, f"it is not JSON ({reason})")
    if not isinstance(values, dict):
        found = type(values).__name__
        return Record(number, {LINE: line[:1000]}, f"it is a JSON {found}, not an object")
    return Record(number, values)


def _tagged_records(
    path: Path, encoding: str, form: conll.Form, extent: Extent
) -> Iterator[Record]:
    for each in conll.sentences(path, encoding, extent):
        if each.problem:
            yield Record(each.line, {LINE: " ".join(each.tokens)[:1000]}, each.problem)
        else:
            yield Record(each.line, conll.row_of(each, form))


def _parquet_records(path: Path, extent: Extent) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _refuse_twice(path, file.schema_arrow.names)
            number = 0
            extent.total, extent.done = file.metadata.num_rows, lambda: number
            batches = file.iter_batches(batch_size=4096)
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, values in enumerate(rows, start=1):
                yield Record(number, values)
    except (ValueError, OverflowError, pa.ArrowNotImplementedError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RowsUnreadable(f"{path} is no Parquet file that can be read: {reason}.") from None


def refuse_place(path: Path) -> None:
    """Raise SettingInvalid where rows cannot be written at a path."""
    if path.suffix.lower() not in (*WRITERS, ".ndjson"):
        raise SettingInvalid(f"{path}: rows can be written as {SUFFIXES}.")
    if not path.parent.is_dir():
        raise SettingInvalid(f"{path}: there is no folder {path.parent}; make it first.")
    if path.is_dir():
        raise SettingInvalid(f"{path} is a folder; name a file for the rows.")


class Writer:
    """Writes rows to a file that appears whole at the end, or not at all.

    The first rows say which columns a csv, tsv or parquet file has; raises SettingInvalid for a
    later row with another one.
    """

    def __init__(self, path: Path):
        refuse_place(path)
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        self._form = WRITERS[form_of(path)](self._draft)

    def __enter__(self) -> Self:
        return self

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows."""
        if rows:
            self._form.write(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._form.close()
            if kind is None:
                self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)


def _refuse_other_columns(rows: Sequence[Row], columns: Sequence[str]) -> None:
    known = frozenset(columns)
    for row in rows:
        if not known.issuperset(row):
            name = next(name for name in row if name not in known)
            raise SettingInvalid(
                f"A row has the column {name!r}, which the first rows have not; such rows can be "
                "written as .jsonl."
            )


class CsvForm:
    """Rows as csv; the first ones say which columns there are, unless these are given.

    Where they are given the file goes on from another and has no header.
    """

    def __init__(self, path: Path, columns: Sequence[str] = (), delimiter: str = ","):
        self._file: IO[str] = path.open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        )
        self._rows = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
        self._columns = list(columns)

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows; raises SettingInvalid for one with another column."""
        if not self._columns:
            self._columns = list(dict.fromkeys(chain.from_iterable(rows)))
            self._rows.writerow(self._columns)
        _refuse_other_columns(rows, self._columns)
        self._rows.writerows([_cell(row.get(name)) for name in self._columns] for row in rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cell(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, bytes):
        return _written(value)
    return _as_json(value) if isinstance(value, dict | list) else value


def _written(value: Any) -> str:
    """What JSON has no form for: bytes as base64, all else as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_as_json = json.JSONEncoder(ensure_ascii=False, default=_written).encode
"""`json.dumps` would make the encoder again for each value."""


class TsvForm(CsvForm):
    """Rows as csv with tabs."""

    def __init__(self, path: Path, columns: Sequence[str] = ()):
        super().__init__(path, columns, "\t")


class JsonlForm:
    """Rows as lines of JSON, whichever columns each has."""

    def __init__(self, path: Path, columns: Sequence[str] = ()):
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows."""
        for row in rows:
            self._file.write(_as_json(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _ParquetForm:
    """The first batches wait until every column has shown its type, up to PENDING_BATCHES."""

    def __init__(self, path: Path):
        self._path = path
        self._pending: list[list[Row]] = []
        self._writer: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        if self._writer is not None:
            self._write_table(rows)
            return
        self._pending.append(list(rows))
        if len(self._pending) >= PENDING_BATCHES or not self._untyped():
            self._flush()

    def _waiting(self) -> list[Row]:
        return list(chain.from_iterable(self._pending))

    def _untyped(self) -> bool:
        rows = self._waiting()
        columns = dict.fromkeys(chain.from_iterable(rows))
        return any(all(row.get(name) in (None, []) for row in rows) for name in columns)

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        rows = self._waiting()
        schema = typed(table_of(rows).schema)
        self._writer = pq.ParquetWriter(self._path, schema)
        self._write_table(rows)
        self._pending = []

    def _write_table(self, rows: Sequence[Row]) -> None:
        _refuse_other_columns(rows, self._writer.schema.names)
        self._writer.write_table(table_of(rows, self._writer.schema))

    def close(self) -> None:
        if self._writer is None:
            self._flush()
        self._writer.close()


def typed(schema: Any) -> Any:
    """An Arrow schema, with text as the type of a column that has no value."""
    import pyarrow as pa

    return pa.schema(
        [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in schema]
    )


def table_of(rows: Sequence[Row], schema: Any = None) -> Any:
    """Rows as an Arrow table with every column that one of them has; raises SettingInvalid."""
    import pyarrow as pa

    columns = schema.names if schema else list(dict.fromkeys(chain.from_iterable(rows)))
    try:
        return pa.Table.from_pydict(
            {name: [row.get(name) for row in rows] for name in columns}, schema=schema
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        raise no_parquet(error) from None


def no_parquet(error: Exception) -> SettingInvalid:
    """The error that says that rows do not go into one table."""
    return SettingInvalid(
        f"A column holds values that Parquet cannot ({error}); write such rows as .jsonl."
    )


WRITERS: dict[str, Callable[[Path], Any]] = {
    ".csv": CsvForm,
    ".tsv": TsvForm,
    ".jsonl": JsonlForm,
    ".parquet": _ParquetForm,
}
