"""Customers: organisations, their projects, users and keys, and what limits and prices they have.

Each change raises the generation, by which every process that serves sees it within a moment.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, and_, delete, func, insert, select, update

from modelyard.core.errors import NameTaken, NotAllowed, SettingInvalid, UnknownName
from modelyard.core.project import PROJECT_NAME
from modelyard.ledger import schema
from modelyard.ledger.database import inserting, now_ms, reading, writing
from modelyard.ledger.keys import NewKey, new_id, new_key
from modelyard.ledger.limits import (
    LARGEST_PRICE,
    MEASURES,
    PERIODS,
    PRICED,
    SUBJECTS,
    Limit,
    Measure,
    SetBy,
)
from modelyard.ledger.roles import USER_ROLES, UserRole

GENERATION = "generation"
NAME = r"^ *[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"
"""A name of a customer: one line, which is not blank."""
SURROGATE = re.compile("[\ud800-\udfff]")
MOST_CHARACTERS = 200
MOST_RELEASES = 24
MOST_DAYS = 36_500
MOST_OVERLAP_HOURS = 24 * 366
TABLES: dict[str, Table] = {
    "organisation": schema.organisations,
    "project": schema.projects,
    "user": schema.users,
    "key": schema.keys,
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """Who is asking: all organisations, or one of them, or one project of it."""

    organisation_id: str | None = None
    project_id: str | None = None


EVERYBODY = Scope()


def add_organisation(engine: Engine, name: str) -> Row:
    """A new organisation; raises NameTaken, SettingInvalid."""
    return _added(engine, "organisation", {"id": new_id("org"), "name": name})


def add_project(engine: Engine, organisation: str, name: str, scope: Scope = EVERYBODY) -> Row:
    """A new project of an organisation; raises UnknownName, NameTaken, SettingInvalid."""
    owner = find(engine, "organisation", organisation, scope)["id"]
    return _added(engine, "project", {"id": new_id("prj"), "organisation_id": owner, "name": name})


def add_user(
    engine: Engine, organisation: str, name: str, role: UserRole, scope: Scope = EVERYBODY
) -> Row:
    """A new user with a role; raises UnknownName, NameTaken, SettingInvalid."""
    _check_role(role)
    owner = find(engine, "organisation", organisation, scope)["id"]
    told = {"id": new_id("usr"), "organisation_id": owner, "name": name, "role": role}
    return _added(engine, "user", told)


def set_role(engine: Engine, user: str, role: UserRole, scope: Scope = EVERYBODY) -> Row:
    """Another role for a user, which the user's keys have from now on; raises UnknownName."""
    _check_role(role)
    with changing(engine) as connection:
        row = _row(connection, "user", user, scope)
        own = schema.users.c.id == row["id"]
        connection.execute(update(schema.users).where(own).values(role=role))
    return row | {"role": role}


def remove_user(engine: Engine, user: str, scope: Scope = EVERYBODY) -> None:
    """Take a user away and revoke the user's keys, in one transaction; raises UnknownName."""
    with changing(engine) as connection:
        row = _row(connection, "user", user, scope)
        keys = schema.keys
        revoked = func.coalesce(keys.c.revoked_ms, now_ms())
        own = update(keys).where(keys.c.user_id == row["id"])
        connection.execute(own.values(revoked_ms=revoked, user_id=None))
        connection.execute(delete(schema.users).where(schema.users.c.id == row["id"]))


def _check_role(role: str) -> None:
    if role not in USER_ROLES:
        raise SettingInvalid(f"A user's role is one of {', '.join(USER_ROLES)}; got {role!r}.")


def _check_name(kind: str, name: str) -> None:
    is_line = re.fullmatch(NAME, name) and not SURROGATE.search(name)
    if not is_line or len(name) > MOST_CHARACTERS:
        raise SettingInvalid(
            f"The name of a {kind} is one line of 1 to {MOST_CHARACTERS} characters; got "
            f"{name[:80]!r}."
        )


def _added(engine: Engine, kind: str, row: Row) -> Row:
    _check_name(kind, row["name"])
    row = row | {"created_ms": now_ms()}
    table = TABLES[kind]
    with writing(engine) as connection:
        placed = inserting(engine, table).values(row).on_conflict_do_nothing()
        if connection.execute(placed.returning(table.c.id)).first() is None:
            raise NameTaken(f"There is a {kind} {row['name'][:80]!r} already; choose another name.")
    return row


def add_key(
    engine: Engine,
    name: str,
    *,
    project: str | None = None,
    user: str | None = None,
    releases: Sequence[str] = (),
    days: float | None = None,
    scope: Scope = EVERYBODY,
) -> tuple[Row, NewKey]:
    """A new key: a program's of a project, a user's, or where neither is given an admin's.

    Returns what is kept of it, and the key itself, which is not. `releases` are those it may
    ask, all where there are none; `days` after which it expires. Raises UnknownName,
    SettingInvalid and NotAllowed.
    """
    _check_key(name, project, user, releases, days)
    made = new_key()
    now = now_ms()
    row: Row = {
        "id": made.id,
        "digest": made.digest,
        "name": name,
        "releases": json.dumps(sorted(set(releases))) if releases else None,
        "created_ms": now,
        "expires_ms": None if days is None else now + int(days * 86_400_000),
        "revoked_ms": None,
    }
    with changing(engine) as connection:
        row |= _bearer(connection, project, user, scope)
        connection.execute(insert(schema.keys).values(row))
    return shown(row), made


def _bearer(connection: Connection, project: str | None, user: str | None, scope: Scope) -> Row:
    """Whose a new key is, and the role it has."""
    row: Row = dict.fromkeys(("organisation_id", "project_id", "user_id"))
    if user is not None:
        owner = _row(connection, "user", user, scope)
        own = {"role": owner["role"], "user_id": owner["id"]}
    elif project is not None:
        owner = _row(connection, "project", project, scope)
        own = {"role": "service", "project_id": owner["id"]}
    elif scope == EVERYBODY:
        return row | {"role": "admin"}
    else:
        raise NotAllowed("Only an admin makes keys of no project and no user.")
    return row | own | {"organisation_id": owner["organisation_id"]}


def _check_key(
    name: str, project: str | None, user: str | None, releases: Sequence[str], days: float | None
) -> None:
    _check_name("key", name)
    if project is not None and user is not None:
        raise SettingInvalid("A key is a project's or a user's; give one of them.")
    strange = [each for each in releases if not re.fullmatch(PROJECT_NAME, each)]
    if strange or len(releases) > MOST_RELEASES:
        raise SettingInvalid(
            f"A key names at most {MOST_RELEASES} releases, each as in its project file; got "
            f"{repr(strange[0])[:80] if strange else len(releases)}."
        )
    if days is not None and not 0 <= days <= MOST_DAYS:
        raise SettingInvalid(f"A key expires after 0 to {MOST_DAYS:,} days; got {days}.")


def rotate_key(
    engine: Engine, key: str, overlap_hours: float, scope: Scope = EVERYBODY
) -> tuple[Row, NewKey]:
    """A key in place of another, which holds for so many hours more.

    Raises UnknownName, and SettingInvalid where the other holds no longer.
    """
    if not 0 <= overlap_hours <= MOST_OVERLAP_HOURS:
        raise SettingInvalid(
            f"A key that is rotated holds for 0 to {MOST_OVERLAP_HOURS:,} hours more; got "
            f"{overlap_hours}."
        )
    made, now = new_key(), now_ms()
    with changing(engine) as connection:
        old = _row(connection, "key", key, scope)
        if old["revoked_ms"] is not None or (old["expires_ms"] or now + 1) <= now:
            raise SettingInvalid(f"The key {old['id']} holds no longer; make a new one.")
        ends = now + int(overlap_hours * 3_600_000)
        row = old | {"id": made.id, "digest": made.digest, "created_ms": now, "revoked_ms": None}
        connection.execute(insert(schema.keys).values(row))
        held = min(ends, old["expires_ms"] or ends)
        own = schema.keys.c.id == old["id"]
        connection.execute(update(schema.keys).where(own).values(expires_ms=held))
        limits = select(schema.limits).where(
            schema.limits.c.subject_kind == "key", schema.limits.c.subject_id == old["id"]
        )
        for each in connection.execute(limits).mappings().all():
            same = {k: v for k, v in each.items() if k != "id"} | {"subject_id": made.id}
            connection.execute(insert(schema.limits).values(same))
    return shown(row), made


def revoke_key(engine: Engine, key: str, scope: Scope = EVERYBODY) -> Row:
    """Have a key hold no longer, at once; raises UnknownName."""
    with changing(engine) as connection:
        row = _row(connection, "key", key, scope)
        own = (schema.keys.c.id == row["id"]) & schema.keys.c.revoked_ms.is_(None)
        connection.execute(update(schema.keys).where(own).values(revoked_ms=now_ms()))
        return shown(_row(connection, "key", key, scope))


def set_limit(
    engine: Engine,
    subject_kind: str,
    subject: str,
    measure: str,
    amount: int,
    period: str = "ever",
    *,
    is_hard: bool = True,
    set_by: SetBy = "admin",
    scope: Scope = EVERYBODY,
) -> Limit:
    """Set or change what a subject may use of a measure; raises SettingInvalid, UnknownName.

    One that a customer sets stands beside the one of an admin.
    """
    _check_limit(subject_kind, measure, amount, period)
    with changing(engine) as connection:
        owner = _row(connection, subject_kind, subject, scope)
        row = {
            "subject_kind": subject_kind,
            "subject_id": owner["id"],
            "measure": measure,
            "period": period,
            "amount": amount,
            "is_hard": is_hard,
            "set_by": set_by,
        }
        same = [name for name in row if name != "amount"]
        placed = inserting(engine, schema.limits).values(row)
        connection.execute(
            placed.on_conflict_do_update(index_elements=same, set_={"amount": amount})
        )
        found = and_(*(schema.limits.c[name] == row[name] for name in same))
        return _limit(connection.execute(select(schema.limits).where(found)).mappings().one())


def _check_limit(subject_kind: str, measure: str, amount: int, period: str) -> None:
    for word, given, known in (
        ("subject", subject_kind, SUBJECTS),
        ("measure", measure, MEASURES),
        ("period", period, PERIODS),
    ):
        if given not in known:
            raise SettingInvalid(
                f"The {word} of a limit is one of {', '.join(known)}; got {given!r}."
            )
    if not 0 <= amount < 2**62:
        raise SettingInvalid(f"The amount of a limit is a whole number from 0; got {amount}.")
    if measure == "at_once" and period != "ever":
        raise SettingInvalid("The measure at_once has no period; leave it out.")


def remove_limit(
    engine: Engine,
    limit: int,
    subject: tuple[str, str] | None = None,
    *,
    set_by: SetBy = "admin",
    scope: Scope = EVERYBODY,
) -> None:
    """Take a limit away, that of a subject if its kind and id are given.

    Raises UnknownName, and NotAllowed where a customer would take away what an admin has set.
    """
    with changing(engine) as connection:
        own = schema.limits.c.id == limit
        row = connection.execute(select(schema.limits).where(own)).mappings().first()
        if row is None or subject not in (None, (row["subject_kind"], row["subject_id"])):
            raise UnknownName(f"There is no limit {limit} here; see those listed.")
        _row(connection, row["subject_kind"], row["subject_id"], scope)
        if row["set_by"] == "admin" and set_by != "admin":
            raise NotAllowed(
                f"Limit {limit} was set by whoever runs the service, who alone may remove it; a "
                "lower one may be set beside it."
            )
        connection.execute(delete(schema.limits).where(own))
        counters = schema.counters.c  # locked in the order in which those who write lock them
        query = select(counters.used).where(counters.limit_id == limit)
        connection.execute(query.order_by(counters.window_s).with_for_update())
        for table in (schema.counters, schema.holds):
            connection.execute(delete(table).where(table.c.limit_id == limit))


def set_price(engine: Engine, release: str, measure: Measure, micros: int, per: int) -> Row:
    """Set what `per` of a measure cost with a release ("" is any), in millionths."""
    if not (0 <= micros <= LARGEST_PRICE and 1 <= per <= LARGEST_PRICE and measure in PRICED):
        raise SettingInvalid(
            f"A price is from 0 to {LARGEST_PRICE:,} millionths, for 1 to as many of "
            f"{', '.join(PRICED)}; got {micros:,} for {per:,} {measure}."
        )
    row = {"release": release, "measure": measure, "micros": micros, "per": per}
    with changing(engine) as connection:
        placed = inserting(engine, schema.prices).values(row)
        connection.execute(
            placed.on_conflict_do_update(
                index_elements=["release", "measure"], set_={"micros": micros, "per": per}
            )
        )
    return row


def prices(engine: Engine) -> list[Row]:
    """All prices, those of any release first."""
    own = schema.prices
    with reading(engine) as connection:
        query = select(own).order_by(own.c.release, own.c.measure)
        return [dict(row) for row in connection.execute(query).mappings()]


def listed(engine: Engine, kind: str, scope: Scope = EVERYBODY) -> list[Row]:
    """All organisations, projects, users or keys that a scope sees, the oldest first."""
    table = TABLES[kind]
    with reading(engine) as connection:
        query = _rows(kind).where(_within(kind, scope)).order_by(table.c.created_ms, table.c.id)
        return [shown(dict(row)) for row in connection.execute(query).mappings()]


def limits_of(engine: Engine, subject_kind: str, subject_id: str) -> list[Limit]:
    """The limits of a subject."""
    with reading(engine) as connection:
        own = schema.limits.c
        query = select(schema.limits).where(
            own.subject_kind == subject_kind, own.subject_id == subject_id
        )
        return [_limit(row) for row in connection.execute(query.order_by(own.id)).mappings()]


def find(engine: Engine, kind: str, name: str, scope: Scope = EVERYBODY) -> Row:
    """One by its id, or by its name where that is the only one; raises UnknownName."""
    with reading(engine) as connection:
        return _row(connection, kind, name, scope)


def _row(connection: Connection, kind: str, name: str, scope: Scope) -> Row:
    table = TABLES[kind]
    within = _within(kind, scope)
    by_id = _rows(kind).where(table.c.id == name, within)
    found = connection.execute(by_id).mappings().all()
    if not found and kind != "key":
        by_name = _rows(kind).where(table.c.name == name, within)
        found = connection.execute(by_name).mappings().all()
    if len(found) != 1:
        reason = (
            f"there are {len(found)} of that name; give its id" if found else "see those listed"
        )
        raise UnknownName(f"There is no one {kind} {name[:80]!r} here; {reason}.")
    return dict(found[0])


def _rows(kind: str) -> Select[Any]:
    return keys_with_roles() if kind == "key" else select(TABLES[kind])


def keys_with_roles() -> Select[Any]:
    """Keys, each with the role that it has now: a user's has that of the user."""
    keys, users = schema.keys, schema.users
    own = [column for column in keys.c if column.name != "role"]
    role = func.coalesce(users.c.role, keys.c.role).label("role")
    return select(*own, role).outerjoin_from(keys, users, keys.c.user_id == users.c.id)


def _within(kind: str, scope: Scope) -> Any:
    """The condition that a row is of the scope."""
    table = TABLES[kind]
    own = "id" if kind == "organisation" else "organisation_id"
    conditions = []
    if scope.organisation_id is not None:
        conditions.append(table.c[own] == scope.organisation_id)
    if scope.project_id is not None and kind in ("project", "key"):
        conditions.append(table.c["id" if kind == "project" else "project_id"] == scope.project_id)
    return and_(True, *conditions)


def shown(row: Row) -> Row:
    """A row without what is secret."""
    told = {name: value for name, value in row.items() if name != "digest"}
    if isinstance(told.get("releases"), str):
        told["releases"] = json.loads(told["releases"])
    return told


def _limit(row: Any) -> Limit:
    return Limit(**{name: row[name] for name in Limit.__dataclass_fields__})


@contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """A transaction that changes customers, keys, limits or prices.

    It raises the generation first of all, and so waits until no other is under way: what it reads
    of them is so until it has ended.
    """
    with writing(engine) as connection:
        changed(engine, connection)
        yield connection


def changed(engine: Engine, connection: Connection) -> int:
    """Raise the generation, and give it."""
    raised = inserting(engine, schema.state).values(name=GENERATION, number=1)
    raised = raised.on_conflict_do_update(
        index_elements=["name"], set_={"number": schema.state.c.number + 1}
    )
    return int(connection.execute(raised.returning(schema.state.c.number)).scalar_one())
