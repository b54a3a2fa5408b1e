"""The rows that a SQL query gives, from any database that SQLAlchemy reaches."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.core.errors import (
    ExtraMissing,
    RowsMissing,
    RowsUnreadable,
    SettingInvalid,
    SourceUnreachable,
)
from modelyard.data.files import Record


def records(url: str, query: str, folder: Path) -> Iterator[Record]:
    """The rows of a query, in its order; a SQLite file is found from `folder`.

    Raises SettingInvalid, ExtraMissing, RowsMissing, SourceUnreachable, RowsUnreadable.
    """
    with _result(url, query, folder) as result:
        names = [str(name) for name in result.keys()]  # noqa: SIM118 - a result is no mapping
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise RowsUnreadable(
                f"data.query gives the column {twice[0]!r} twice; give one of them another name "
                "with AS."
            )
        for number, row in enumerate(result, start=1):
            yield Record(number, dict(zip(names, row, strict=True)))


def count(url: str, query: str, folder: Path) -> int:
    """How many rows a query gives, counted by the database."""
    counted = f"SELECT count(*) FROM ({query.rstrip().rstrip(';')}) AS counted"  # noqa: S608
    with _result(url, counted, folder) as result:
        return int(result.scalar_one())


def digest_of(url: str, query: str, folder: Path) -> str:
    """The SHA-256 of all that a query gives, in its order."""
    hashed = hashlib.sha256()
    for record in records(url, query, folder):
        hashed.update(json.dumps(record.values, default=str).encode())
        hashed.update(b"\n")
    return hashed.hexdigest()


@contextmanager
def _result(url: str, query: str, folder: Path) -> Iterator[Any]:
    try:
        import sqlalchemy as sql
        from sqlalchemy import exc
    except ImportError:
        raise ExtraMissing(
            "Rows from a database need SQLAlchemy; run pip install 'modelyard[build]'."
        ) from None
    shown = url.partition("://")[0] + "://…"  # what follows may hold a password
    try:
        engine = sql.create_engine(_placed(sql.make_url(url), folder))
    except (exc.ArgumentError, ValueError) as error:
        raise SettingInvalid(f"data.rows: {shown} is no database URL: {error}.") from None
    except ImportError as error:
        raise ExtraMissing(
            f"data.rows: no driver for {shown} is installed ({error}); install it with pip."
        ) from None
    try:
        with engine.connect() as connection:
            yield connection.execution_options(stream_results=True).execute(sql.text(query))
    except (exc.OperationalError, exc.InterfaceError) as error:
        raise SourceUnreachable(
            f"The database {shown} does not answer data.query: {_first_line(error)}; check the "
            "URL and the query."
        ) from None
    except exc.SQLAlchemyError as error:
        raise RowsUnreadable(f"data.query gives no rows: {_first_line(error)}.") from None
    finally:
        engine.dispose()


def _placed(url: Any, folder: Path) -> Any:
    """A SQLite file, relative to the project's folder; it must be there."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return url
    path = folder / url.database
    if not path.is_file():
        raise RowsMissing(f"There is no SQLite file {path}; check data.rows.")
    return url.set(database=str(path))


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
