"""A connection of PostgreSQL that is sent statements without waiting for each (libpq's pipeline).

What waits is sent together, so that a transaction takes as many round trips as it has moments at
which something has to be known. psycopg has a pipeline of its own, which sends and looks for
answers at each statement; that took four times the processor
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html).
"""

import select
from collections import deque
from collections.abc import Sequence
from typing import Any

from psycopg import Connection, OperationalError, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result

IS_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Sent:
    """A statement that was sent."""

    def __init__(self, pipeline: "Pipeline"):
        self._pipeline = pipeline
        self.result: pq.abc.PGresult | None = None

    def row(self) -> tuple[Any, ...] | None:
        """The first row of what it found, which is waited for; None where there is none."""
        if self.result is None:
            self._pipeline.wait_for(self)
        return self._pipeline.first_row(self)


class Pipeline:
    """Speaks to libpq itself; after an error the connection is of no more use.

    Raises errors of psycopg.
    """

    def __init__(self, connection: Connection[Any]):
        self._libpq = connection.pgconn
        self._adapter = Transformer(connection)
        self._prepared: set[str] = set()
        self._unread: deque[Sent] = deque()
        self._is_asked_for = True
        connection.rollback()
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()

    def begin(self) -> None:
        """Begin a transaction; nothing is waited for."""
        self.send("begin", "BEGIN", ())

    def commit(self) -> None:
        """Have all that was sent be on disk."""
        self.send("commit", "COMMIT", ())
        self._libpq.pipeline_sync()
        self._flush()
        while self._unread:
            self._read()
        self._good(self._next(), pq.ExecStatus.PIPELINE_SYNC)

    def send(self, name: str, text: str, values: Sequence[Any]) -> Sent:
        """Have a statement be sent, prepared once by its name; its parameters are $1 and on."""
        own = name.encode()
        if name not in self._prepared:
            self._libpq.send_prepare(own, text.encode())
            self._unread.append(Sent(self))
            self._prepared.add(name)
        self._libpq.send_query_prepared(
            own, self._adapter.dump_sequence(values, [PyFormat.TEXT] * len(values))
        )
        self._is_asked_for = False
        sent = Sent(self)
        self._unread.append(sent)
        return sent

    def send_all(self, name: str, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Have a statement be sent for each row of values."""
        for row in rows:
            self.send(name, text, row)

    def wait_for(self, sent: Sent) -> None:
        """Read up to what a statement has found."""
        if not self._is_asked_for:
            self._libpq.send_flush_request()
            self._flush()
            self._is_asked_for = True
        while sent.result is None:
            self._read()

    def first_row(self, sent: Sent) -> tuple[Any, ...] | None:
        """The first row of what was read."""
        assert sent.result
        if not sent.result.ntuples:
            return None
        self._adapter.set_pgresult(sent.result)
        return self._adapter.load_row(0, tuple)

    def _read(self) -> None:
        self._unread.popleft().result = self._good(self._next(), *IS_FINE)
        self._next()  # which ends what the statement has found

    def _good(self, result: pq.abc.PGresult | None, *states: pq.ExecStatus) -> pq.abc.PGresult:
        if result is None:
            raise OperationalError("the connection is lost")
        if result.status not in states:
            raise error_from_result(result)
        return result

    def _next(self) -> pq.abc.PGresult | None:
        while self._libpq.is_busy():
            self._wait(select.POLLIN)
            self._libpq.consume_input()
        return self._libpq.get_result()

    def _flush(self) -> None:
        while self._libpq.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                self._libpq.consume_input()

    def _wait(self, events: int) -> int:
        poll = select.poll()
        poll.register(self._libpq.socket, events)
        [(_, found)] = poll.poll()
        return found
