"""The database of the ledger: one file of SQLite, or PostgreSQL by its URL."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from modelyard.core.errors import ExtraMissing, LedgerAway, SettingInvalid

URL = "MODELYARD_DATABASE"
FILE = "ledger.sqlite3"
WAIT_SECONDS = 10
LOCK_SECONDS = 8
IDLE_SECONDS = 5
"""How long one that serves waits for a lock, and may do nothing while it holds some."""
POSTGRESQL = "postgresql"
Upsert = sqlite.Insert | postgresql.Insert


def opened(url: str) -> Engine:
    """The database at a URL; nothing is asked of it yet.

    A commit is on disk when it returns, in SQLite too (write-ahead log, synchronous = FULL).
    Raises SettingInvalid and ExtraMissing.
    """
    try:
        made = make_url(url)
        name = made.get_backend_name()
        if name == POSTGRESQL:
            made = made.set(drivername="postgresql+psycopg")
        elif name != "sqlite":
            raise ArgumentError(name)
        engine = create_engine(made, **_options(name))
    except (ArgumentError, NoSuchModuleError):
        raise SettingInvalid(
            "The database is neither SQLite nor PostgreSQL; give a URL such as "
            "sqlite:////var/lib/modelyard/ledger.sqlite3 or postgresql://user@host/modelyard."
        ) from None
    except ModuleNotFoundError:
        raise ExtraMissing(
            "A PostgreSQL database needs psycopg; install it with "
            "`pip install 'modelyard[postgresql]'`."
        ) from None
    if name == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
    return engine


def _options(name: str) -> dict[str, Any]:
    if name == "sqlite":
        return {"connect_args": {"timeout": WAIT_SECONDS, "check_same_thread": False}}
    dead_after = {"tcp_user_timeout": 1000 * WAIT_SECONDS, "keepalives_idle": WAIT_SECONDS}
    options = {"connect_timeout": WAIT_SECONDS, **dead_after}
    return {"pool_pre_ping": True, "connect_args": options}


def hurried(engine: Engine) -> Engine:
    """The database for what serves: nothing there waits long for a lock, or keeps one idly."""

    def set_up(connection: Any, _: Any) -> None:
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.commit()

    if engine.dialect.name == POSTGRESQL:
        engine.dispose()
        event.listen(engine, "connect", set_up)
    return engine


def _set_up(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says so
    for line in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {line}")


def _begin(connection: Connection) -> None:
    """A transaction that will write waits for its turn at once, and cannot fail half way."""
    reads = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def inserting(engine: Engine, table: Any) -> Upsert:
    """An insert that may say what happens where the row is there already."""
    if engine.dialect.name == POSTGRESQL:
        return postgresql.insert(table)
    return sqlite.insert(table)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction; raises LedgerAway where the database is gone, full, or busy too long."""
    with _told(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads; raises LedgerAway."""
    with _told(), engine.connect().execution_options(reads_only=True) as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment, whatever is written meanwhile; raises LedgerAway."""
    options: dict[str, Any] = {"reads_only": True}
    if engine.dialect.name == POSTGRESQL:
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _told(), engine.connect().execution_options(**options) as connection:
        yield connection


def hold_still(connection: Connection, *tables: Table) -> None:
    """Have others wait with what they write into tables until this transaction ends.

    With SQLite they wait anyway.
    """
    if connection.dialect.name == POSTGRESQL:
        names = ", ".join(table.name for table in tables)
        connection.execute(text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise away(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or not isinstance(error, OURS):
            raise away(error) from error
        raise


OURS = (DataError, IntegrityError, ProgrammingError, NotSupportedError)
"""Errors of what was asked of the database, and not of the database."""


def away(error: BaseException) -> LedgerAway:
    """What the database says, as an error; a client is told that it says something."""
    reason = next(iter(str(getattr(error, "orig", error)).splitlines()), type(error).__name__)
    return LedgerAway(
        "The ledger's database does not take what is written; nothing was counted, send the "
        "request again a little later.",
        reason[:200].rstrip("."),
    )


def now_ms() -> int:
    """Milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


def default_url(folder: Path) -> str:
    """The URL of $MODELYARD_DATABASE, or of a file in a folder."""
    return os.environ.get(URL) or default_file(folder)


def default_file(folder: Path) -> str:
    """The URL of the file that a ledger is in where no other is named."""
    return f"sqlite:///{folder / FILE}"


def tables(engine: Engine) -> set[str]:
    """The names of the tables that are there."""
    with _told():
        return set(inspect(engine).get_table_names())


def version(engine: Engine) -> str | None:
    """The revision of the tables, or None where there are none."""
    if "alembic_version" not in tables(engine):
        return None
    with reading(engine) as connection:
        found: str | None = connection.execute(
            text("SELECT version_num FROM alembic_version")
        ).scalar()
    return found
