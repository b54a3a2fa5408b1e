"""Where a project's rows come from: a file, a folder, the Hub, or a database."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modelyard.core import digest
from modelyard.core.errors import ColumnMissing, RowsEmpty, RowsMissing, SettingInvalid
from modelyard.core.events import Decided, Events, Warned, silent
from modelyard.core.project import Data, Project
from modelyard.core.stages import RowFacts
from modelyard.data import files, folder, hub, sql
from modelyard.data.candidates import TEXT
from modelyard.data.encodings import Encoding
from modelyard.data.files import Opened, Record

QUICK_ROWS = 20_000


@dataclass(frozen=True)
class Rows:
    """All records of a source, those with a problem too, in their order."""

    name: str
    records: list[Record]
    columns: list[str]
    counted_in: str
    """What a record's number counts: line, row or file."""
    encoding: Encoding | None
    beside: Path
    """Where relative paths in the rows start."""

    def place(self, record: Record) -> str:
        """Where a record stands, for a person: line 12, row 12, or a file's path."""
        if self.counted_in == "file":
            return str(record.values[folder.FILE])
        return f"{self.counted_in} {record.number}"


def read(project: Project, events: Events = silent) -> Rows:
    """Read everything; raises RowsMissing, RowsEmpty, RowsUnreadable, ColumnMissing and others."""
    opened = _open(project.data, project.folder)
    _tell(opened, project.data, events)
    _tell_left_out(project.folder / project.data.rows, events)
    records = list(opened.records)
    if not records:
        raise RowsEmpty(f"{without_secrets(project.data.rows)} holds no rows; add rows.")
    columns = columns_of(records)
    require(columns, columns_wanted(project), without_secrets(project.data.rows))
    return Rows(
        without_secrets(project.data.rows),
        records,
        columns,
        opened.counted_in,
        opened.encoding,
        beside(project),
    )


def beside(project: Project) -> Path:
    """Where relative paths in the rows start: the folder of rows, or the one their file is in."""
    if "://" in project.data.rows:
        return project.folder
    path = project.folder / project.data.rows
    return path if path.is_dir() else path.parent


def first(project: Project) -> Rows:
    """The first rows of a source, as many as a quick look takes; nothing is told of them."""
    opened = _open(project.data, project.folder)
    records = list(islice(opened.records, QUICK_ROWS))
    name = without_secrets(project.data.rows)
    return Rows(
        name, records, columns_of(records), opened.counted_in, opened.encoding, beside(project)
    )


def without_secrets(source: str) -> str:
    """A source of rows as it may be shown: a database URL without user, password and query.

    >>> without_secrets("postgresql://ann:secret@db.example/sales?sslkey=a")
    'postgresql://db.example/sales'
    >>> without_secrets("rows/sentences.csv"), without_secrets("hf://owner/name@v1:train")
    ('rows/sentences.csv', 'hf://owner/name@v1:train')
    """
    scheme, separator, rest = source.partition("://")
    if not separator or scheme == "hf":
        return source
    place, _, query = rest.replace("#", "?").partition("?")
    if "@" in query:  # a password with ? in it, or an address: nobody can tell
        return f"{scheme}://…"
    return f"{scheme}://{place.rpartition('@')[2]}"


def _tell(opened: Opened, data: Data, events: Events) -> None:
    if opened.encoding:
        sure = f"{opened.encoding.why}; confidence {opened.encoding.confidence:.0%}"
        events(Decided("encoding", opened.encoding.name, sure))
        if opened.encoding.confidence < 1 and data.encoding == "auto":
            events(Warned("Look at some texts; if letters are wrong, set data.encoding."))
    if opened.delimiter in (";", "|"):
        events(Decided("delimiter", repr(opened.delimiter), "the header line has no comma"))
    if opened.tags:
        events(Decided("tags", opened.tags, "the tags of the file are such"))
    if data.rows.startswith("hf://") and not hub.parse(data.rows).revision:
        events(Warned("The Hub dataset may change: pin it with @REVISION in data.rows."))


def _tell_left_out(place: Path, events: Events) -> None:
    """Of a folder, the files that make no rows."""
    if place.is_dir() and (others := folder.others_in(place)):
        events(
            Warned(
                f"A row is made from {folder.MADE_FROM}; left out in {place.name}: "
                f"{len(others):,}, such as {others[0].relative_to(place)}."
            )
        )


def _open(data: Data, base: Path) -> Opened:
    if data.rows.startswith("hf://"):
        return Opened(hub.records(hub.parse(data.rows)), "row")
    if "://" in data.rows:
        return Opened(sql.records(data.rows, _query(data), base), "row")
    return open_path(base / data.rows, data.encoding)


def open_path(path: Path, encoding: str = "auto") -> Opened:
    """Open a file of rows, or a folder of text files or images by class."""
    if not path.is_dir():
        return files.open_rows(path, encoding)
    found = folder.files_in(path)
    if folder.is_image(found[0]):
        return Opened(folder.image_records(path, found), "file")
    chosen = folder.encoding_of(found, encoding)
    return Opened(folder.records(path, found, chosen.name, encoding != "auto"), "file", chosen)


def _query(data: Data) -> str:
    if not data.query:
        raise SettingInvalid("data.rows is a database URL, so data.query has to say what to read.")
    return data.query


def columns_of(records: Iterable[Record]) -> list[str]:
    """Every column that some record has, in the order of appearance."""
    names = (n for r in records for n in r.values if not (r.problem and n in files.UNNAMED))
    return list(dict.fromkeys(names))


def columns_wanted(project: Project) -> list[str]:
    """The columns that a project names, each once."""
    split = project.data.split
    target = (project.target.column, project.target.pool, project.target.seen)
    named = [*project.inputs, *target, split.by, split.group, split.time, split.given]
    return [name for name in dict.fromkeys(named) if name]


def require(columns: Sequence[str], wanted: Iterable[str], source: str) -> None:
    """Raise ColumnMissing where one is wanted that is not there."""
    for name in wanted:
        if name in columns:
            continue
        alike = [c for c in columns if c.strip().casefold() == name.strip().casefold()]
        if alike:
            raise ColumnMissing(
                f"{source} has no column {name!r}; there is {alike[0]!r}: write it so in "
                "modelyard.toml."
            )
        known = ", ".join(repr(column) for column in columns[:20]) or "none"
        raise ColumnMissing(
            f"{source} has no column {name!r}; its columns are {known}: name one of these in "
            "modelyard.toml."
        )


def no_names(record: Record) -> Sequence[str]:
    """Nothing is known of what a row's target names."""
    return ()


def facts(
    project: Project, names: Callable[[Record], Iterable[str]] = no_names, picks: bool = False
) -> RowFacts:
    """How many rows there are and how long they are, from a quick look at the first ones.

    `names` gives what a row's target names: labels, or the candidates that it `picks`.
    """
    data = project.data
    if data.rows.startswith("hf://"):
        return hub.facts(hub.parse(data.rows))
    opened = _open(data, project.folder)
    records = list(islice(opened.records, QUICK_ROWS))
    if not records:
        raise RowsEmpty(f"{without_secrets(data.rows)} holds no rows; add rows.")
    require(columns_of(records), columns_wanted(project), without_secrets(data.rows))
    characters = sum(_length(r.values.get(name, "")) for r in records for name in project.inputs)
    rows = len(records) if len(records) < QUICK_ROWS else _count(data, project.folder, records)
    named = {name for record in records for name in names(record)}
    if not picks:
        return RowFacts(rows, characters / len(records), len(named))
    lengths = _candidate_lengths(project) or list(map(len, named))
    mean = sum(lengths) / max(1, len(lengths))
    return RowFacts(rows, characters / len(records), candidate_characters=mean)


def _candidate_lengths(project: Project) -> list[int]:
    """Of the first candidates of a project's file; none where it has no such file."""
    if not project.target.candidates:
        return []
    found = islice(files.open_filled(candidates_file(project)).records, QUICK_ROWS)
    return [_length(record.values.get(TEXT) or "") for record in found]


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | bytes) else len(str(value))


def _count(data: Data, base: Path, records: Sequence[Record]) -> int:
    """All rows of a source of which the first ones are known."""
    if "://" in data.rows:
        return sql.count(data.rows, _query(data), base)
    path = base / data.rows
    if path.is_dir():
        return len(folder.files_in(path))
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    return round(lines_in(path) * len(records) / records[-1].number)


def lines_in(path: Path) -> int:
    """How many lines a file has."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def source_digest(project: Project) -> str:
    """A digest of what the rows are: their bytes, a Hub revision, or what a query gives."""
    own = _digest_of_rows(project)
    if not project.target.candidates:
        return own
    return digest.of_json([own, digest.of_file(candidates_file(project))])


def candidates_file(project: Project) -> Path:
    """The project's file of candidates; raises RowsMissing where it is not there."""
    file = project.folder / str(project.target.candidates)
    if not file.is_file():
        raise RowsMissing(
            f"There is no file {file}; check target.candidates, relative to the project."
        )
    return file


def _digest_of_rows(project: Project) -> str:
    data = project.data
    if data.rows.startswith("hf://"):
        return digest.of_json(data.rows)
    if "://" in data.rows:
        return sql.digest_of(data.rows, _query(data), project.folder)
    path = project.folder / data.rows
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in folder.files_in(path)]
        return digest.of_json(digest.of_folder(path, names))
    if not path.is_file():
        raise RowsMissing(f"There is no file {path}; check data.rows, relative to the project.")
    return digest.of_file(path)


def files_digest(project: Project, columns: Sequence[str]) -> str:
    """A digest of the files that the rows name in some columns, by their content."""
    base, found = beside(project), {}
    for record in _open(project.data, project.folder).records:
        for value in (record.values.get(column) for column in columns):
            if isinstance(value, str) and value not in found and files.is_file(base, value):
                found[value] = digest.of_file(base / value)
    return digest.of_json(found)
