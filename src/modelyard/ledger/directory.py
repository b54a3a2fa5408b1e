"""The directory: who a key stands for, remembered until customers, keys or limits change."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

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
        self._asked: SimpleQueue[Lookup | None] = SimpleQueue()
        self._ended = threading.Event()
        for _ in range(LOOKING_UP):
            threading.Thread(target=self._look_up, daemon=True, name="keys").start()
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
        """As `caller`, in a thread, which is not waited for where the database does not answer."""
        self._refuse_if_away()
        done: asyncio.Future[Caller] = asyncio.get_running_loop().create_future()
        self._asked.put((text, done))
        try:
            async with asyncio.timeout(AWAY_SECONDS):
                return await done
        except TimeoutError:
            raise _away() from None

    def caller(self, text: str) -> Caller:
        """Who a key stands for; raises KeyRefused, LedgerAway."""
        parts = parted(text)
        if parts is None:
            raise KeyRefused("What was sent is no key; a key begins with my_, and is sent whole.")
        name, secret = parts
        known = self._known  # a change puts another in its place: what was read before is lost
        self._refuse_if_away()
        found = (known.get(name) if self._is_fresh else None) or self._read(name)
        if found and len(known) < MOST_REMEMBERED:
            known[name] = found
        return _checked(found, secret)

    def _refuse_if_away(self) -> None:
        if self.is_away:
            raise _away()

    def _look_up(self) -> None:
        """Look keys up, one after the other, for whom still waits."""
        while lookup := self._asked.get():
            text, done = lookup
            if done.cancelled():
                continue
            try:
                work = partial(_set, done, self.caller(text))
            except Exception as error:  # noqa: BLE001 – told to who waits
                work = partial(_set, done, error)
            with suppress(RuntimeError):  # the loop is closed
                done.get_loop().call_soon_threadsafe(work)

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() - self._seen < FRESH_SECONDS

    @property
    def is_away(self) -> bool:
        """Whether the database has not been there of late."""
        return time.monotonic() - self._seen > AWAY_SECONDS

    def close(self) -> None:
        """Look no more; a database that does not answer is not waited for."""
        self._ended.set()
        for _ in range(LOOKING_UP):
            self._asked.put(None)
        self._thread.join(AWAY_SECONDS)

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


Lookup = tuple[str, "asyncio.Future[Caller]"]


def _set(done: "asyncio.Future[Caller]", found: Caller | Exception) -> None:
    if done.done():
        return
    if isinstance(found, Exception):
        done.set_exception(found)
    else:
        done.set_result(found)


def _away() -> LedgerAway:
    return LedgerAway(
        "The ledger's database is away, so nobody's key is known; send the request again a little "
        "later."
    )


def _checked(caller: Caller | None, secret: str) -> Caller:
    """The caller, where the secret is the key's and the key holds; raises KeyRefused."""
    if not is_same(secret, caller.digest if caller else bytes(32)) or caller is None:
        raise KeyRefused("The key is unknown; ask whoever runs the service for one.")
    if caller.revoked_ms is not None:
        raise KeyRefused("The key has been revoked; use the one that took its place.")
    if caller.expires_ms is not None and caller.expires_ms <= now_ms():
        raise KeyRefused("The key has expired; use the one that took its place.")
    return caller
