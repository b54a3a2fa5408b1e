"""Databases for tests: SQLite in a file, and a real PostgreSQL that the session starts."""

import asyncio
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, Table, select

from modelyard.ledger.database import opened, reading
from modelyard.ledger.entries import Entry, Record
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.revisions import ready

DAY_MS = 86_400_000
KINDS = ("sqlite", "postgresql")


def pgserver() -> ModuleType:
    """The package that carries a PostgreSQL; it warns where a container has no runtime folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("pgserver")


@contextmanager
def own_postgres() -> Iterator[Any]:
    """A server of one's own: in a folder that the user it runs as can read, unlike a test's."""
    with tempfile.TemporaryDirectory(prefix="modelyard-", ignore_cleanup_errors=True) as folder:
        server = pgserver().get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server of one's own."""
    with own_postgres() as server:
        yield str(server.get_uri())


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    return empty(request.param, request, tmp_path)


@pytest.fixture
def other_url(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the other kind than `url`."""
    other = KINDS[url.startswith(KINDS[0])]
    return empty(other, request, tmp_path / "other")


def empty(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database."""
    if kind == "sqlite":
        folder.mkdir(exist_ok=True)
        return f"sqlite:///{folder / 'ledger.sqlite3'}"
    import psycopg

    server = str(request.getfixturevalue("postgres"))
    name = f"t{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A ledger's database with its tables."""
    made = ready(opened(url))
    yield made
    made.dispose()


def settled(engine: Engine, *records: Record) -> None:
    """Have a ledger write records."""
    ledger = Ledger(engine)

    async def run() -> None:
        await asyncio.gather(*(ledger.settle(Entry(each)) for each in records))

    asyncio.run(run())
    ledger.close()


def rows_of(engine: Engine, table: Table) -> list[dict[str, Any]]:
    """All rows of a table, by its key."""
    with reading(engine) as connection:
        query = select(table).order_by(*table.primary_key)
        return [dict(row) for row in connection.execute(query).mappings()]
