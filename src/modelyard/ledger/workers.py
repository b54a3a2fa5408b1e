"""Workers: the processes that write into a ledger; what the dead among them held is let go."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from modelyard.core.errors import LedgerAway
from modelyard.ledger import schema
from modelyard.ledger.database import reading, writing

SILENT_SECONDS = 30.0
"""After so long without a beat a worker is given up, and what it holds is let go.

It is several times what a worker may have to wait until it can write.
"""
HELD_UP_SECONDS = 3.0


class Others:
    """Watches over the other workers of a ledger."""

    def __init__(self, engine: Engine, host: str):
        self._engine = engine
        self._host = host
        self._looked = time.monotonic()
        self._heard: dict[str, tuple[int, float]] = {}

    def look(self, worker: str) -> None:
        """Let go what workers hold that are dead; to be called once in a second by `worker`.

        Whoever has been held up itself knows nothing of the silence of others.
        """
        now = time.monotonic()
        if now - self._looked > HELD_UP_SECONDS:
            self._heard = {}
        self._looked = now
        with suppress(LedgerAway):
            with reading(self._engine) as connection:
                rows = connection.execute(select(schema.workers)).mappings().all()
            self._heard = {row["id"]: self._last_heard(row, now) for row in rows}
            for row in rows:
                if row["id"] != worker and self._is_dead(row, now):
                    with writing(self._engine) as connection:
                        let_go(connection, row["id"], row["beat"])

    def _last_heard(self, row: Any, now: float) -> tuple[int, float]:
        beat, since = self._heard.get(row["id"], (-1, now))
        return row["beat"], since if beat == row["beat"] else now

    def _is_dead(self, row: Any, now: float) -> bool:
        """Whether a worker has been silent for long, or is a process of this machine that ended."""
        if now - self._heard[row["id"]][1] > SILENT_SECONDS:
            return True
        if row["host"] != self._host:
            return False
        try:
            os.kill(row["process"], 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False


def this_host() -> str:
    """Where numbers of processes mean the same: a machine since it was started, or a container.

    >>> this_host() == this_host()
    True
    """
    told = [socket.gethostname()]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(told)[:200]


def let_go(connection: Connection, worker: str, beat: int | None = None) -> None:
    """Strike a worker off with all it holds; unless it has beaten since `beat`."""
    own = schema.workers.c.id == worker
    if beat is not None:
        own &= schema.workers.c.beat == beat
    if not connection.execute(delete(schema.workers).where(own)).rowcount:
        return
    connection.execute(delete(schema.holds).where(schema.holds.c.worker == worker))
    connection.execute(delete(schema.answers).where(schema.answers.c.worker == worker))
