"""Databases for tests: SQLite in a file, and a real PostgreSQL that the session starts."""

import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from modelyard.ledger.database import opened
from modelyard.ledger.revisions import ready

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of one's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that a container lacks
        import pgserver

    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield str(server.get_uri())
    server.cleanup()


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
