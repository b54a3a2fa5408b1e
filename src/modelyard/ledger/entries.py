"""Entries: what requests claim of the ledger, and what is written of them.

They are tuples, as several are made for each request, and a frozen dataclass takes longer.
"""

from typing import Any, NamedTuple

from modelyard.ledger.contents import Content
from modelyard.ledger.limits import Limit, Usage

Place = tuple[int, int]
"""A limit and the moment at which its period began."""
HOUR_MS = 3_600_000


class Repeat(NamedTuple):
    """An idempotency key of a project, and what was asked with it."""

    scope: str
    key: str
    digest: bytes


class Kept(NamedTuple):
    """An answer as it was sent, for a client that asks again."""

    status: int
    head: str
    body: bytes


class Demand(NamedTuple):
    """What a request will use of a limit in the period of now."""

    limit: Limit
    window_s: int
    amount: int
    retry_after_s: int | None

    @property
    def place(self) -> Place:
        """Its counter."""
        return self.limit.id, self.window_s


class Claim(NamedTuple):
    """What a request wants to reserve before it is answered."""

    demands: tuple[Demand, ...]
    repeat: Repeat | None = None


class Standing(NamedTuple):
    """How much of a limit is left after a request."""

    limit: Limit
    left: int


class Reservation(NamedTuple):
    """What is reserved for a request, by the worker that answers it."""

    worker: str
    demands: tuple[Demand, ...] = ()
    repeat: Repeat | None = None
    standings: tuple[Standing, ...] = ()


class Record(NamedTuple):
    """One request, as the journal keeps it."""

    id: str
    at_ms: int
    organisation_id: str
    project_id: str
    key_id: str
    release: str
    version: str
    route: str
    outcome: str
    status: int
    usage: Usage
    latency_us: int
    queue_us: int

    def to_row(self) -> dict[str, Any]:
        """The record as a row of the table."""
        own = self._asdict() | self.usage._asdict()
        del own["usage"]
        return own


class Entry(NamedTuple):
    """A request that has been answered, or has ended otherwise: its record, and what is let go."""

    record: Record | None
    reservation: Reservation | None = None
    kept: Kept | None = None
    content: Content | None = None

    @property
    def is_answered(self) -> bool:
        """Whether it counts."""
        return self.record is not None and self.record.usage.requests > 0


Operation = Claim | Entry
Result = Reservation | Kept | Exception | None
