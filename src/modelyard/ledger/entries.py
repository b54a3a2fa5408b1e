"""Entries: what requests claim of the ledger, and what is written of them."""

from dataclasses import dataclass
from typing import Any

from modelyard.ledger.contents import Content
from modelyard.ledger.limits import Limit, Usage

Place = tuple[int, int]
"""A limit and the moment at which its period began."""
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Repeat:
    """An idempotency key of a project, and what was asked with it."""

    scope: str
    key: str
    digest: bytes


@dataclass(frozen=True)
class Kept:
    """An answer as it was sent, for a client that asks again."""

    status: int
    head: str
    body: bytes


@dataclass(frozen=True)
class Demand:
    """What a request will use of a limit in the period of now."""

    limit: Limit
    window_s: int
    amount: int
    retry_after_s: int | None

    @property
    def place(self) -> Place:
        """Its counter."""
        return self.limit.id, self.window_s


@dataclass(frozen=True)
class Claim:
    """What a request wants to reserve before it is answered."""

    demands: tuple[Demand, ...]
    repeat: Repeat | None = None


@dataclass(frozen=True)
class Standing:
    """How much of a limit is left after a request."""

    limit: Limit
    left: int


@dataclass(frozen=True)
class Reservation:
    """What is reserved for a request, by the worker that answers it."""

    worker: str
    demands: tuple[Demand, ...] = ()
    repeat: Repeat | None = None
    standings: tuple[Standing, ...] = ()


@dataclass(frozen=True)
class Record:
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
        own = {name: value for name, value in vars(self).items() if name != "usage"}
        return own | vars(self.usage)


@dataclass(frozen=True)
class Entry:
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
