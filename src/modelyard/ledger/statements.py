"""The ledger's statements as its driver takes them: made once, as each is run thousands of times.

What writes requests down speaks to the driver itself. A layer that builds and checks statements
would cost several times what the database does with them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Engine, bindparam, delete, func, insert, literal_column, null, select, update
from sqlalchemy.dialects.postgresql.asyncpg import dialect as numbered
from sqlalchemy.exc import SQLAlchemyError

from modelyard.ledger import schema
from modelyard.ledger.database import OURS, POSTGRESQL, away, inserting
from modelyard.ledger.limits import USED

Row = Mapping[str, Any]
PLACE = ("limit_id", "window_s")
KEY = ("scope", "idempotency_key")


class Asked(Protocol):
    """A statement that was sent to the database."""

    def row(self) -> Sequence[Any] | None:
        """The first row of what it found, which may have to be waited for."""


class Connection(Protocol):
    """A connection of the driver; the parameters of a text are by position."""

    def begin(self) -> None:
        """Begin a transaction."""

    def send(self, name: str, text: str, values: Sequence[Any]) -> Asked:
        """Run a statement."""

    def send_all(self, name: str, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one for each row of values."""

    def commit(self) -> None:
        """Have all that was run be on disk."""


class Statements:
    """Runs statements by name with values by name, in transactions of a connection of its own."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._is_postgresql = engine.dialect.name == POSTGRESQL
        self._texts = {name: self._text(each) for name, each in _all_of(engine).items()}
        self._pooled: Any = None
        self._connection: Connection | None = None
        self.is_unsure = False
        """Whether the last transaction was to be committed, and nothing was heard of it."""

    def _text(self, statement: Any) -> tuple[str, tuple[str, ...]]:
        dialect: Any = numbered() if self._is_postgresql else self._engine.dialect  # type: ignore[no-untyped-call]
        compiled = statement.compile(dialect=dialect)
        return str(compiled), tuple(compiled.positiontup)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction, which is on disk at the end.

        With PostgreSQL what is asked goes out together and is waited for where it is read, so most
        transactions take two round trips.
        Raises LedgerAway; or what the driver does where the fault is in what was asked of it.
        """
        driver: Any = self._engine.dialect.dbapi
        ours = tuple(getattr(driver, each.__name__) for each in OURS)
        self.is_unsure = False
        try:
            own = self._connection = self._connection or self._connected()
            own.begin()
            yield
            self.is_unsure = True
            own.commit()
            self.is_unsure = False
        except BaseException as broken:
            self.close()
            if isinstance(broken, ours):  # the database has refused it, and has undone the rest
                self.is_unsure = False
            elif isinstance(broken, driver.Error | SQLAlchemyError):
                raise away(broken) from broken
            raise

    def _connected(self) -> Connection:
        self._pooled = self._engine.raw_connection()
        if not self._is_postgresql:
            return _OfSQLite(self._pooled)
        from modelyard.ledger.pipeline import Pipeline  # which needs the extra "postgresql"

        return Pipeline(self._pooled.driver_connection)

    def close(self) -> None:
        """Give the connection up; what is under way is undone by that."""
        pooled, self._pooled, self._connection = self._pooled, None, None
        if pooled is not None:
            if not self._is_postgresql:
                with suppress(Exception):
                    pooled.rollback()
            pooled.invalidate()

    def run(self, name: str, **values: Any) -> Asked:
        """Run one."""
        text, names = self._texts[name]
        assert self._connection
        return self._connection.send(name, text, [values[each] for each in names])

    def many(self, name: str, rows: Iterable[Row]) -> None:
        """Run one for each row of values."""
        text, names = self._texts[name]
        assert self._connection
        if listed := [[row[each] for each in names] for row in rows]:
            self._connection.send_all(name, text, listed)


@dataclass(frozen=True)
class _Found:
    """What a statement has found; a cursor with more rows would keep the file locked."""

    rows: Sequence[Sequence[Any]]

    def row(self) -> Sequence[Any] | None:
        return self.rows[0] if self.rows else None


@dataclass(frozen=True)
class _OfSQLite:
    """A connection of SQLite, where a transaction that will write waits for its turn at once."""

    driver: Any

    def begin(self) -> None:
        self.driver.cursor().execute("BEGIN IMMEDIATE")

    def send(self, name: str, text: str, values: Sequence[Any]) -> Asked:
        return _Found(self.driver.cursor().execute(text, values).fetchall())

    def send_all(self, name: str, text: str, rows: Sequence[Sequence[Any]]) -> None:
        self.driver.cursor().executemany(text, rows)

    def commit(self) -> None:
        self.driver.commit()


def _all_of(engine: Engine) -> dict[str, Any]:
    """The statements by name."""
    return {**_of_workers(), **_of_limits(engine), **_of_answers(engine), **_of_records(engine)}


def _of_workers() -> dict[str, Any]:
    own = schema.workers.c
    beat = update(schema.workers).values(beat=bindparam("new"))
    now = beat.where(own.id == bindparam("worker"), own.beat == bindparam("old"))
    return {"beat": now.returning(own.beat)}


def _of_limits(engine: Engine) -> dict[str, Any]:
    counters, holds = schema.counters, schema.holds

    def here(table: Any) -> Any:
        return (table.c.limit_id == bindparam("limit_id")) & (
            table.c.window_s == bindparam("window_s")
        )

    used = select(counters.c.used).where(here(counters))
    new: dict[str, Any] = {name: bindparam(name) for name in (*PLACE, "used")}
    hold = inserting(engine, holds).values(
        {name: bindparam(name) for name in ("worker", *PLACE, "amount")}
    )
    return {
        "counter": inserting(engine, counters).values(new).on_conflict_do_nothing(),
        "used": used.with_for_update() if engine.dialect.name == POSTGRESQL else used,
        "others": select(func.coalesce(func.sum(holds.c.amount), literal_column("0"))).where(
            here(holds), holds.c.worker != bindparam("worker")
        ),
        "use": update(counters)
        .where(here(counters))
        .values(used=counters.c.used + bindparam("more")),
        "hold": hold.on_conflict_do_update(
            index_elements=["worker", *PLACE], set_={"amount": hold.excluded.amount}
        ),
    }


def _of_answers(engine: Engine) -> dict[str, Any]:
    answers = schema.answers.c
    own = (answers.scope == bindparam("own_scope")) & (
        answers.idempotency_key == bindparam("own_key")
    )
    row: dict[str, Any] = {name: bindparam(name) for name in (*KEY, "digest", "worker", "at_ms")}
    claim = inserting(engine, schema.answers).values(row).on_conflict_do_nothing()
    told = ("status", "head", "body", "at_ms")
    return {
        "answer": select(answers.digest, answers.status, answers.head, answers.body).where(own),
        "claim": claim.returning(answers.scope),
        "keep": update(schema.answers)
        .where(own)
        .values({"worker": null(), **{name: bindparam(name) for name in told}}),
        "drop": delete(schema.answers).where(own),
    }


def _of_records(engine: Engine) -> dict[str, Any]:
    columns = [column.name for column in schema.records.columns if column.name != "number"]
    record = insert(schema.records).values({name: bindparam(name) for name in columns})
    rollups = schema.rollups
    placed = inserting(engine, rollups).values({c.name: bindparam(c.name) for c in rollups.c})
    added = {name: rollups.c[name] + placed.excluded[name] for name in USED}
    keys = [column.name for column in rollups.primary_key]
    content = insert(schema.contents).values({c.name: bindparam(c.name) for c in schema.contents.c})
    return {
        "record": record.inline(),
        "content": content.inline(),
        "rollup": placed.on_conflict_do_update(index_elements=keys, set_=added),
    }
