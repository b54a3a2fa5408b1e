"""Customers: organisations, their projects, users and keys, and what limits and prices they have.

Each change raises the generation, by which every process that serves sees it within a moment.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, and_, delete, insert, select, update

from modelyard.core.errors import SettingInvalid, UnknownName
from modelyard.ledger import schema
from modelyard.ledger.database import inserting, now_ms, reading, writing
from modelyard.ledger.keys import NewKey, new_id, new_key
from modelyard.ledger.limits import MEASURES, PERIODS, SUBJECTS, Limit, Measure
from modelyard.ledger.roles import USER_ROLES, Role

GENERATION = "generation"
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
    """A new organisation; raises SettingInvalid where the name is taken."""
    return _added(engine, "organisation", {"id": new_id("org"), "name": name})


def add_project(engine: Engine, organisation: str, name: str, scope: Scope = EVERYBODY) -> Row:
    """A new project of an organisation; raises UnknownName, SettingInvalid."""
    owner = find(engine, "organisation", organisation, scope)["id"]
    return _added(engine, "project", {"id": new_id("prj"), "organisation_id": owner, "name": name})


def add_user(
    engine: Engine, organisation: str, name: str, role: Role, scope: Scope = EVERYBODY
) -> Row:
    """A new user with a role; raises UnknownName, SettingInvalid."""
    if role not in USER_ROLES:
        raise SettingInvalid(f"A user's role is one of {', '.join(USER_ROLES)}; got {role!r}.")
    owner = find(engine, "organisation", organisation, scope)["id"]
    told = {"id": new_id("usr"), "organisation_id": owner, "name": name, "role": role}
    return _added(engine, "user", told)


def _added(engine: Engine, kind: str, row: Row) -> Row:
    if not row["name"].strip() or len(row["name"]) > 200:
        raise SettingInvalid(f"The name of a {kind} has 1 to 200 characters.")
    row = row | {"created_ms": now_ms()}
    table = TABLES[kind]
    with writing(engine) as connection:
        placed = inserting(engine, table).values(row).on_conflict_do_nothing()
        if connection.execute(placed.returning(table.c.id)).first() is None:
            raise SettingInvalid(f"There is a {kind} {row['name']!r} already; choose another name.")
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
    ask, all where there are none; `days` after which it expires. Raises UnknownName.
    """
    made = new_key()
    now = now_ms()
    row: Row = {
        "id": made.id,
        "digest": made.digest,
        "name": name,
        "role": "admin",
        "organisation_id": None,
        "project_id": None,
        "user_id": None,
        "releases": json.dumps(sorted(releases)) if releases else None,
        "created_ms": now,
        "expires_ms": None if days is None else now + int(days * 86_400_000),
        "revoked_ms": None,
    }
    if user:
        owner = find(engine, "user", user, scope)
        row |= {"role": owner["role"], "user_id": owner["id"]}
    if project:
        owner = find(engine, "project", project, scope)
        row |= {"project_id": owner["id"]} | ({} if user else {"role": "service"})
    if user or project:
        row["organisation_id"] = owner["organisation_id"]
    with writing(engine) as connection:
        connection.execute(insert(schema.keys).values(row))
        changed(engine, connection)
    return shown(row), made


def rotate_key(
    engine: Engine, key: str, overlap_hours: float, scope: Scope = EVERYBODY
) -> tuple[Row, NewKey]:
    """A key in place of another, which holds for so many hours more; raises UnknownName."""
    made, now = new_key(), now_ms()
    with writing(engine) as connection:
        old = _row(connection, "key", key, scope)
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
        changed(engine, connection)
    return shown(row), made


def revoke_key(engine: Engine, key: str, scope: Scope = EVERYBODY) -> Row:
    """Have a key hold no longer, at once; raises UnknownName."""
    with writing(engine) as connection:
        row = _row(connection, "key", key, scope)
        own = schema.keys.c.id == row["id"]
        connection.execute(update(schema.keys).where(own).values(revoked_ms=now_ms()))
        changed(engine, connection)
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
    scope: Scope = EVERYBODY,
) -> Limit:
    """Set or change what a subject may use of a measure; raises SettingInvalid, UnknownName."""
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
    if (measure == "at_once") is not (period == "ever") and measure == "at_once":
        raise SettingInvalid("The measure at_once has no period; leave it out.")
    with writing(engine) as connection:
        owner = _row(connection, subject_kind, subject, scope)
        row = {
            "subject_kind": subject_kind,
            "subject_id": owner["id"],
            "measure": measure,
            "period": period,
            "amount": amount,
            "is_hard": is_hard,
        }
        same = ["subject_kind", "subject_id", "measure", "period", "is_hard"]
        placed = inserting(engine, schema.limits).values(row)
        connection.execute(
            placed.on_conflict_do_update(index_elements=same, set_={"amount": amount})
        )
        changed(engine, connection)
        found = and_(*(schema.limits.c[name] == row[name] for name in same))
        return _limit(connection.execute(select(schema.limits).where(found)).mappings().one())


def remove_limit(engine: Engine, limit: int, scope: Scope = EVERYBODY) -> None:
    """Take a limit away; raises UnknownName."""
    with writing(engine) as connection:
        own = schema.limits.c.id == limit
        row = connection.execute(select(schema.limits).where(own)).mappings().first()
        if row is None:
            raise UnknownName(f"There is no limit {limit}.")
        _row(connection, row["subject_kind"], row["subject_id"], scope)
        connection.execute(delete(schema.limits).where(own))
        for table in (schema.counters, schema.holds):  # another may get its number
            connection.execute(delete(table).where(table.c.limit_id == limit))
        changed(engine, connection)


def set_price(engine: Engine, release: str, measure: Measure, micros: int, per: int) -> None:
    """Set what `per` of a measure cost with a release ("" is any), in millionths."""
    if micros < 0 or per < 1 or measure not in MEASURES:
        raise SettingInvalid("A price has an amount from 0, for 1 or more of a measure.")
    row = {"release": release, "measure": measure, "micros": micros, "per": per}
    with writing(engine) as connection:
        placed = inserting(engine, schema.prices).values(row)
        connection.execute(
            placed.on_conflict_do_update(
                index_elements=["release", "measure"], set_={"micros": micros, "per": per}
            )
        )
        changed(engine, connection)


def listed(engine: Engine, kind: str, scope: Scope = EVERYBODY) -> list[Row]:
    """All organisations, projects, users or keys that a scope sees, the oldest first."""
    table = TABLES[kind]
    with reading(engine) as connection:
        query = select(table).where(_within(kind, scope)).order_by(table.c.created_ms, table.c.id)
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
    by_id = select(table).where(table.c.id == name, within)
    found = connection.execute(by_id).mappings().all()
    if not found and kind != "key":
        found = (
            connection.execute(select(table).where(table.c.name == name, within)).mappings().all()
        )
    if len(found) != 1:
        reason = (
            f"there are {len(found)} of that name; give its id" if found else "see those listed"
        )
        raise UnknownName(f"There is no one {kind} {name[:80]!r} here; {reason}.")
    return dict(found[0])


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


def changed(engine: Engine, connection: Connection) -> int:
    """Raise the generation, and give it."""
    raised = inserting(engine, schema.state).values(name=GENERATION, number=1)
    raised = raised.on_conflict_do_update(
        index_elements=["name"], set_={"number": schema.state.c.number + 1}
    )
    return int(connection.execute(raised.returning(schema.state.c.number)).scalar_one())
