"""The ledger's statements as its driver takes them: made once, as each is run thousands of times.

What writes requests down speaks to the driver itself. A layer that builds and checks statements
would cost several times what the database does with them.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sqlalchemy import Engine, bindparam, delete, func, insert, literal_column, null, select, update
from sqlalchemy.exc import SQLAlchemyError

from modelyard.ledger import schema
from modelyard.ledger.database import OURS, POSTGRESQL, away, inserting
from modelyard.ledger.limits import USED

Row = Mapping[str, Any]
PLACE = ("limit_id", "window_s")
KEY = ("scope", "idempotency_key")


class Statements:
    """Runs statements by name with values by name, in transactions of a connection of its own."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._is_postgresql = engine.dialect.name == POSTGRESQL
        self._texts = {name: self._text(each) for name, each in _all_of(engine).items()}
        self._connection: Any = None
        self._pipeline = ExitStack()
        self.is_unsure = False
        """Whether the last transaction was to be committed, and nothing was heard of it."""

    def _text(self, statement: Any) -> tuple[str, tuple[str, ...] | None]:
        compiled = statement.compile(dialect=self._engine.dialect)
        names = compiled.positiontup
        return str(compiled), None if names is None else tuple(names)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction, which is on disk at the end.

        With PostgreSQL what is asked goes out at once and is waited for where it is read, so most
        transactions take three round trips (pipeline mode of libpq).
        Raises LedgerAway; or what the driver does where the fault is in what was asked of it.
        """
        driver: Any = self._engine.dialect.dbapi
        ours = tuple(getattr(driver, each.__name__) for each in OURS)
        self.is_unsure = False
        try:
            self._connection = self._connection or self._connected()
            if not self._is_postgresql:
                self._connection.cursor().execute("BEGIN IMMEDIATE")
            yield
            self.is_unsure = True
            self._connection.commit()
            self.is_unsure = False
        except BaseException as broken:
            self._let_go()
            if isinstance(broken, ours):  # the database has refused it, and has undone the rest
                self.is_unsure = False
            elif isinstance(broken, driver.Error | SQLAlchemyError):
                raise away(broken) from broken
            raise

    def _connected(self) -> Any:
        connection: Any = self._engine.raw_connection()
        if self._is_postgresql:  # as long as the connection lives, as an end costs a round trip
            self._pipeline.enter_context(connection.driver_connection.pipeline())
        return connection

    def _let_go(self) -> None:
        """Give up the connection, whose transaction is undone by that."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not self._is_postgresql:  # a cursor that an error holds would keep the file locked
                with suppress(Exception):
                    connection.rollback()
            connection.invalidate()
            with suppress(Exception):  # nothing is sent on what is closed
                self._pipeline.close()

    def close(self) -> None:
        """Give the connection up; nothing is under way."""
        self._let_go()

    def run(self, name: str, **values: Any) -> Any:
        """Run one; a cursor with its rows."""
        text, names = self._texts[name]
        cursor = self._connection.cursor()
        cursor.execute(text, values if names is None else [values[each] for each in names])
        return cursor

    def many(self, name: str, rows: Iterable[Row]) -> None:
        """Run one for each row of values."""
        text, names = self._texts[name]
        listed = list(rows)
        if listed:
            self._connection.cursor().executemany(
                text, listed if names is None else [[row[n] for n in names] for row in listed]
            )


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
