"""Contents: rows and answers of some requests, where the project says that they are kept.

They are written in the transaction of the request's record, stay in the database, and are deleted
when their days have passed. They never go into files, which would outlive that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, RowMapping, delete, select

from modelyard.core.project import Serve
from modelyard.ledger import schema
from modelyard.ledger.database import now_ms, reading, writing
from modelyard.ledger.redaction import redacted, summary

DAY_MS = 86_400_000
MOST_CHARACTERS = 65_536
"""Of a request's rows, and of its answers; what is longer is cut."""
AT_ONCE_ROWS = 1000
IDS = 2**64


@dataclass(frozen=True)
class Content:
    """Rows and answers of a request as JSON, and until when they are kept."""

    until_ms: int
    inputs: str
    answers: str | None
    is_cut: bool


def is_kept(request: str, share: float) -> bool:
    """Whether a request is among the share of those that are kept; by its id, so once for all.

    >>> is_kept("req_00000000000000ff", 0.001), is_kept("req_ffffffffffffffff", 0.999)
    (True, False)
    """
    return int(request.removeprefix("req_"), 16) < share * IDS


def content_of(
    kept: Serve, rows: Sequence[Mapping[str, Any]], answers: Sequence[Any] | None
) -> Content:
    """What is kept of a request, as [serve] says; answers are None where they are vectors."""
    inputs, more = _told(kept, rows)
    outputs, most = (None, False) if answers is None else _told(kept, answers)
    return Content(now_ms() + round(kept.keep_days * DAY_MS), inputs, outputs, more or most)


def _told(kept: Serve, values: Sequence[Any]) -> tuple[str, bool]:
    """Values as JSON, and whether they were cut; of those beyond that nothing is made."""
    found, size = [], 0
    for each in values:
        plain = _short(each)
        plain = redacted(plain) if kept.keep_redacted else plain
        found.append(json.dumps(plain, ensure_ascii=False, default=str))
        size += len(found[-1]) + len(", ")
        if size > MOST_CHARACTERS:
            break
    return f"[{', '.join(found)}]"[:MOST_CHARACTERS], size > MOST_CHARACTERS


def _short(value: Any) -> Any:
    """A value whose texts are no longer than is kept, and its bytes told by their digest."""
    match value:
        case str():
            return value[:MOST_CHARACTERS]
        case bytes():
            return summary(value)
        case Mapping():
            return {name: _short(each) for name, each in value.items()}
        case list() | tuple():
            return [_short(each) for each in value]
    return value


def read(engine: Engine, release: str | None = None, after_ms: int = 0) -> Iterator[dict[str, Any]]:
    """What is kept, the oldest first, of a release, and since a moment; none whose days passed."""
    own = schema.contents
    query = select(own).where(own.c.at_ms >= after_ms, own.c.until_ms > now_ms())
    if release is not None:
        query = query.where(own.c.release == release)
    with reading(engine) as connection:
        found = connection.execution_options(yield_per=AT_ONCE_ROWS)
        for row in found.execute(query.order_by(own.c.at_ms, own.c.id)).mappings():
            yield _read(row)


def _read(row: RowMapping) -> dict[str, Any]:
    told = dict(row)
    for name in ("inputs", "answers"):
        if told[name] is not None and not told["is_cut"]:
            told[name] = json.loads(told[name])
    return told


def delete_old(engine: Engine) -> int:
    """Delete those whose days have passed, at most AT_ONCE_ROWS; how many there were."""
    own = schema.contents.c
    some = select(own.id).where(own.until_ms <= now_ms()).limit(AT_ONCE_ROWS)
    with writing(engine) as connection:
        return connection.execute(delete(schema.contents).where(own.id.in_(some))).rowcount
