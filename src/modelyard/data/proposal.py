"""What a project on some rows could look like, from a look at their columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from modelyard.core.errors import ColumnMissing, RowsEmpty
from modelyard.data.column import Column, is_missing
from modelyard.data.files import Record
from modelyard.data.folder import FILE
from modelyard.data.source import columns_of, open_path

LOOK_ROWS = 200_000
CLASS_NAMES = {
    *(
        "label",
        "labels",
        "class",
        "sentiment",
        "category",
        "topic",
        "intent",
        "tags",
        "target",
        "y",
    ),
    *("标签", "类别", "情感", "分类", "意图"),
}
AMOUNT_NAMES = {"target", "y", "price", "价格"}
ANSWER_NAMES = {"answer", "answers", "reply", "response", "答案", "回答", "回复"}
MOST_TOLD = 10


@dataclass(frozen=True)
class Proposal:
    """Inputs and target of a project, and what else differs from the defaults."""

    inputs: Mapping[str, str]
    """The kind of each column going in."""
    target: str
    kind: str
    """The column to predict, and its kind."""
    backbone: Mapping[str, str] = field(default_factory=dict)
    """A pre-trained network for each kind of input that has one."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Columns that could go in too, and their kinds."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Keys of the project file that differ from their defaults, by section."""
    why: str = ""


def propose(path: Path) -> Proposal:
    """Guess what goes in and what is predicted; raises ColumnMissing, RowsEmpty and others.

    Where there is text, or there are pictures, they go in alone, and other columns are told; of a
    table all columns go in that say something.
    """
    columns = _columns(path)
    content = _content(columns)
    target, kind = _target(path, columns, content)
    rest = [column for column in columns if column is not target and column not in content]
    able = {column.name: column.kind for column in rest if column.kind}
    if not content and not able:
        content = _words(path, columns, target)
    return Proposal(
        inputs={column.name: _content_kind(column) for column in content} or able,
        target=target.name,
        kind=kind,
        backbone=_backbone(content),
        others=able if content else {},
        settings=_settings(rest),
        why=_why(content, target, kind, rest, able),
    )


def _columns(path: Path) -> list[Column]:
    """The columns of the first rows that have a name which can be written."""
    opened = open_path(path)
    looked_at = list(islice(opened.records, LOOK_ROWS))
    records = [record for record in looked_at if not record.problem]
    if not looked_at:
        raise RowsEmpty(f"{path} holds no rows; add some.")
    if not records:
        first = looked_at[0]
        raise RowsEmpty(
            f"None of the {len(looked_at):,} rows of {path} can be read ({opened.counted_in} "
            f"{first.number}: {first.problem}); mend them."
        )
    names = [name for name in columns_of(records) if opened.counted_in != "file" or name != FILE]
    beside = path if path.is_dir() else path.parent
    return [_column(name, records, beside) for name in names if _can_be_written(name)]


def _column(name: str, records: Sequence[Record], beside: Path) -> Column:
    values = [value for r in records if not is_missing(value := r.values.get(name))]
    return Column(name, values, len(records), beside)


def _can_be_written(name: str) -> bool:
    return name.encode("utf-8", "ignore").decode("utf-8") == name


def _content(columns: Sequence[Column]) -> list[Column]:
    """The longest column of text, and all of pictures."""
    texts = [column for column in columns if column.kind == "text"]
    texts = [column for column in texts if not _is_answer(column)] or texts
    longest = max(texts, key=lambda column: column.mean_characters, default=None)
    return [c for c in columns if c is longest or c.kind == "image"]


def _words(path: Path, columns: Sequence[Column], target: Column) -> list[Column]:
    """The longest column of single words: it may be text, as there is nothing else."""
    able = [c for c in columns if c is not target and c.distinct > 1 and _is_text(c)]
    if not able:
        raise ColumnMissing(
            f"No column of {path} but {target.name!r} says anything that differs from row to row; "
            "add a column that goes in."
        )
    return [max(able, key=lambda column: column.mean_characters)]


def _is_text(column: Column) -> bool:
    return all(isinstance(value, str) for value in column.values)


def _content_kind(column: Column) -> str:
    return column.kind or "text"


def _target(path: Path, columns: Sequence[Column], content: Sequence[Column]) -> tuple[Column, str]:
    """The column to predict, and its kind; raises ColumnMissing."""
    rest = [column for column in columns if column not in content]
    found = next(_targets(rest, content), None)
    if found is None:
        raise ColumnMissing(
            f"No column of {path} looks like a class (two values or more, each often) or an "
            f"amount; its columns are {', '.join(repr(c.name) for c in columns[:20])}: add a "
            "column that says what is to be predicted of each row."
        )
    return found


def _targets(rest: Sequence[Column], content: Sequence[Column]) -> Iterator[tuple[Column, str]]:
    """What may be predicted, the likeliest first."""
    has_text = any(column.kind == "text" for column in content)
    yield from ((c, "spans") for c in rest if has_text and c.is_spans)
    able = [(column, kind) for column in rest if (kind := target_kind(column))]
    yield from sorted(_named(able), key=lambda pair: pair[0].distinct)
    yield from ((c, "match") for c in rest if has_text and c.kind == "text" and _is_answer(c))
    if not content and able and able[-1][0] is rest[-1]:
        yield able[-1]
    kinds = ("labels", "class", "number")
    yield from sorted(able, key=lambda pair: (kinds.index(pair[1]), pair[0].distinct))


def _is_answer(column: Column) -> bool:
    return column.name.strip().casefold() in ANSWER_NAMES


def _named(able: Sequence[tuple[Column, str]]) -> list[tuple[Column, str]]:
    return [(c, k) for c, k in able if c.name.strip().casefold() in CLASS_NAMES | AMOUNT_NAMES]


def target_kind(column: Column) -> str | None:
    """labels, class or number, or None where a column is none of them."""
    name = column.name.strip().casefold()
    if column.labels and column.distinct > 1:
        return "labels"
    if column.reason or column.is_images:
        return None
    codes = column.is_whole and name in CLASS_NAMES - AMOUNT_NAMES
    if column.is_class and (codes or not column.is_amount):
        return "class"
    return "number" if column.is_amount else None


def _backbone(content: Sequence[Column]) -> dict[str, str]:
    return {_content_kind(column): _known(column) for column in content}


def _known(column: Column) -> str:
    if column.kind == "image":
        return "efficientnet-lite0"
    return "m3e-small" if column.is_chinese else "minilm"


def _settings(rest: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """The split that comes with the rows, if one does."""
    parts = next((column.name for column in rest if column.is_parts), None)
    return {"data.split": {"given": parts}} if parts else {}


def _why(
    content: Sequence[Column],
    target: Column,
    kind: str,
    rest: Sequence[Column],
    able: Mapping[str, str],
) -> str:
    said = [_goes_in(column) for column in content] or [_table(able)]
    left = [f"{column.name!r} ({column.reason})" for column in rest if column.reason]
    sentences = [
        f"{', '.join(said)}; {_is_predicted(target, kind)}, in the first {target.rows:,} rows."
    ]
    if content and able:
        sentences.append(
            f"Could go in too, and are comments in [inputs]: {_some(map(repr, able))}."
        )
    if left:
        sentences.append(f"Left out: {_some(left)}.")
    return " ".join(sentences)


def _goes_in(column: Column) -> str:
    if column.kind == "image":
        return f"{column.name!r} holds images"
    return f"{column.name!r} holds text ({column.mean_characters:.0f} characters on average)"


def _table(able: Mapping[str, str]) -> str:
    counts = {kind: list(able.values()).count(kind) for kind in dict.fromkeys(able.values())}
    told = " and ".join(f"{n} of the kind {kind}" for kind, n in counts.items())
    return f"No column holds text, so all go in that say something: {told}"


def _is_predicted(target: Column, kind: str) -> str:
    if kind == "match":
        return f"{target.name!r} holds answers"
    if kind == "spans":
        return f"{target.name!r} holds pieces of it with their labels"
    if kind == "labels":
        return f"{target.name!r} holds several labels at once"
    what = "numbers" if kind == "number" else "values"
    return f"{target.name!r} holds {target.distinct:,} different {what}"


def _some(names: Any) -> str:
    first = list(names)
    more = f" and {len(first) - MOST_TOLD} more" if len(first) > MOST_TOLD else ""
    return ", ".join(first[:MOST_TOLD]) + more
