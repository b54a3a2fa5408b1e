"""The directory: who a key stands for, remembered until customers, keys or limits change."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Engine, or_, select

from modelyard.core.errors import KeyRefused, LedgerAway
from modelyard.ledger import schema
from modelyard.ledger.customers import EVERYBODY, GENERATION, Scope, keys_with_roles
from modelyard.ledger.database import now_ms, reading
from modelyard.ledger.keys import is_same, parted
from modelyard.ledger.limits import Limit, Measure, Price
from modelyard.ledger.roles import Role

LOOK_SECONDS = 0.1
"""How often it is seen whether anything has changed."""
FRESH_SECONDS = 0.5
"""What is remembered holds so long after it was seen that nothing has changed."""
AWAY_SECONDS = 2.0
LOOKING_UP = 4
"""Threads that look keys up, which no other work keeps busy."""
MOST_REMEMBERED = 100_000


@dataclass(frozen=True)
class Caller:
    """The bearer of a key: who it is, what it may ask, and the limits it has."""

    key_id: str
    digest: bytes
    role: Role
    organisation_id: str | None
    project_id: str | None
    user_id: str | None
    releases: frozenset[str] | None
    expires_ms: int | None
    revoked_ms: int | None
    limits: tuple[Limit, ...] = ()
    prices: Mapping[str, Mapping[Measure, Price]] = field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        """What it sees of customers; an admin sees all, anybody else one organisation at most."""
        if self.role == "admin":
            return EVERYBODY
        return Scope(self.organisation_id or "", self.project_id)

    def prices_of(self, release: str) -> Mapping[Measure, Price]:
        """What a release costs; where nothing is said of it, what any costs."""
        return self.prices.get(release) or self.prices.get("", {})


class Directory:
    """Looks keys up; a change is seen within LOOK_SECONDS, also one that another process makes."""

    def __init__(self, engine: Engine, changed: Callable[[int], None] = lambda generation: None):
        self._engine = engine
        self._changed = changed
        self._generation = -1
        self._known: dict[str, Caller] = {}
        self._seen = time.monotonic()
        self._lookups = ThreadPoolExecutor(LOOKING_UP, "keys")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_always, daemon=True, name="directory")
        self._thread.start()

    def remembered(self, text: str) -> Caller | None:
        """The caller of a key that was looked up before, without a wait; None otherwise."""
        if not self._is_fresh:
            return None
        parts = parted(text)
        caller = self._known.get(parts[0]) if parts else None
        return _checked(caller, parts[1]) if caller and parts else None

    async def looked_up(self, text: str) -> Caller:
        """As `caller`, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lookups, self.caller, text)

    def caller(self, text: str) -> Caller:
        """Who a key stands for; raises KeyRefused, LedgerAway."""
        parts = parted(text)
        if parts is None:
            raise KeyRefused("What was sent is no key; a key begins with my_, and is sent whole.")
        name, secret = parts
        known = self._known  # a change puts another in its place: what was read before is lost
        if self.is_away:
            raise LedgerAway(
                "The ledger's database is away, so nobody's key is known; send the request again a "
                "little later."
            )
        found = (known.get(name) if self._is_fresh else None) or self._read(name)
        if found and len(known) < MOST_REMEMBERED:
            known[name] = found
        return _checked(found, secret)

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() - self._seen < FRESH_SECONDS

    @property
    def is_away(self) -> bool:
        """Whether the database has not been there of late."""
        return time.monotonic() - self._seen > AWAY_SECONDS

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()
        self._lookups.shutdown(cancel_futures=True)

    def _read(self, name: str) -> Caller | None:
        keys, limits = schema.keys, schema.limits
        with reading(self._engine) as connection:
            asked = keys_with_roles().where(keys.c.id == name)
            row = connection.execute(asked).mappings().first()
            if row is None:
                return None
            subjects = {
                "key": row["id"],
                "project": row["project_id"],
                "organisation": row["organisation_id"],
            }
            own = [
                (limits.c.subject_kind == kind) & (limits.c.subject_id == subject)
                for kind, subject in subjects.items()
            ]
            query = select(limits).where(or_(*own)).order_by(limits.c.id)
            held = connection.execute(query).mappings().all()
            priced = connection.execute(select(schema.prices)).mappings().all()
        prices: dict[str, dict[Measure, Price]] = {}
        for each in priced:
            by_measure = prices.setdefault(each["release"], {})
            by_measure[each["measure"]] = Price(each["measure"], each["micros"], each["per"])
        return Caller(
            key_id=row["id"],
            digest=bytes(row["digest"]),
            role=row["role"],
            organisation_id=row["organisation_id"],
            project_id=row["project_id"],
            user_id=row["user_id"],
            releases=frozenset(json.loads(row["releases"])) if row["releases"] else None,
            expires_ms=row["expires_ms"],
            revoked_ms=row["revoked_ms"],
            limits=tuple(Limit(**each) for each in held),
            prices=prices,
        )

    def _look_always(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with suppress(Exception):  # what is remembered is soon too old then, and not used
                self._look()

    def _look(self) -> None:
        state, began = schema.state, time.monotonic()
        with reading(self._engine) as connection:
            query = select(state.c.number).where(state.c.name == GENERATION)
            found = connection.execute(query).scalar() or 0
        if found != self._generation:
            self._known = {}
            self._changed(found)
            self._generation = found
        self._seen = began


def _checked(caller: Caller | None, secret: str) -> Caller:
    """The caller, where the secret is the key's and the key holds; raises KeyRefused."""
    if not is_same(secret, caller.digest if caller else bytes(32)) or caller is None:
        raise KeyRefused("The key is unknown; ask whoever runs the service for one.")
    if caller.revoked_ms is not None:
        raise KeyRefused("The key has been revoked; use the one that took its place.")
    if caller.expires_ms is not None and caller.expires_ms <= now_ms():
        raise KeyRefused("The key has expired; use the one that took its place.")
    return caller
