"""Contents: rows and answers of some requests, where the project says that they are kept.

They are written in the transaction of the request's record, stay in the database, and are deleted
when their days have passed. They never go into files, which would outlive that.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, RowMapping, delete, select

from modelyard.core.project import Serve
from modelyard.ledger import schema
from modelyard.ledger.database import now_ms, reading, writing
from modelyard.ledger.redaction import redacted

DAY_MS = 86_400_000
MOST_CHARACTERS = 65_536
"""Of a request's rows, and of its answers; what is longer is cut."""
MARGIN_CHARACTERS = 1000
MOST_ROWS = 2000
"""Of a request: more than go into so many characters are not worked on."""
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
    kept: Serve,
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[Any] | None,
    pictures: Collection[str] = (),
) -> Content:
    """What is kept of a request, as [serve] says; answers are None where they are vectors.

    Of what the columns of `pictures` have, the size and the SHA-256 are kept.
    """
    without = [
        {name: summary(value) if name in pictures else value for name, value in row.items()}
        for row in rows[:MOST_ROWS]
    ]
    inputs, more = _told(kept, without)
    outputs, most = (None, False) if answers is None else _told(kept, answers)
    is_cut = more or most or len(rows) > MOST_ROWS
    return Content(now_ms() + round(kept.keep_days * DAY_MS), inputs, outputs, is_cut)


def _told(kept: Serve, values: Sequence[Any]) -> tuple[str, bool]:
    """Values as JSON, and whether they were cut; of those beyond that nothing is made."""
    found, size = [], 0
    for each in values:
        found.append(json.dumps(_plain(kept, each), ensure_ascii=False, default=str))
        size += len(found[-1]) + len(", ")
        if size > MOST_CHARACTERS:
            break
    return f"[{', '.join(found)}]"[:MOST_CHARACTERS], size > MOST_CHARACTERS


def _plain(kept: Serve, value: Any) -> Any:
    """A value as it is kept: what is personal is looked for before a text is cut."""
    match value:
        case str():
            some = value[: MOST_CHARACTERS + MARGIN_CHARACTERS]
            return (redacted(some) if kept.keep_redacted else some)[:MOST_CHARACTERS]
        case bytes():
            return summary(value)
        case Mapping():
            return {str(name): _plain(kept, each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(kept, each) for each in value]
    return value


def summary(value: Any) -> Any:
    """What stands for a picture, as bytes or as base64 in JSON; None where there is none.

    >>> summary(b"")["bytes"], summary("aGk=")["bytes"], summary(None)
    (0, 2, None)
    """
    if value is None:
        return None
    data = value if isinstance(value, bytes) else _decoded(str(value))
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


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
    old = select(own.id).where(own.until_ms <= now_ms()).limit(AT_ONCE_ROWS)
    some = old.with_for_update(skip_locked=True)  # another worker may be about to do the same
    with writing(engine) as connection:
        return connection.execute(delete(schema.contents).where(own.id.in_(some))).rowcount
