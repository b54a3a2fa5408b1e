"""Deployments: which releases the services of a ledger load, and where their aliases lead.

Whatever is changed here, each process that serves follows within a moment; `followed` says when
all of them have.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, select, update

from modelyard.core.errors import ServiceBusy, SettingInvalid, UnknownName
from modelyard.ledger import schema
from modelyard.ledger.customers import GENERATION, changed
from modelyard.ledger.database import inserting, now_ms, reading, writing

ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")
FOLLOWS_NONE = -1
"""The generation of a worker that does not serve what is deployed, or not yet."""
LOOK_SECONDS = 0.05
FOLLOW_SECONDS = 60.0


@dataclass(frozen=True)
class Placement:
    """A release that services know, and whether they are to load it."""

    name: str
    version: str
    folder: str
    is_loaded: bool


@dataclass(frozen=True)
class Lead:
    """Where an alias of a release leads: weights by version, and one that is asked beside."""

    name: str
    alias: str
    shares: Mapping[str, int]
    shadow: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The alias as it is told."""
        return {"alias": self.alias, "shares": dict(self.shares), "shadow": self.shadow}


@dataclass(frozen=True)
class Standing:
    """What is to be served, as of a generation; the newest placement of a name stands last."""

    generation: int
    placements: tuple[Placement, ...]
    leads: tuple[Lead, ...]


def standing(engine: Engine) -> Standing:
    """What is to be served now."""
    with reading(engine) as connection:
        number = _generation(connection)
        own = schema.placements.c
        rows = connection.execute(select(schema.placements).order_by(own.at_ms, own.version))
        placements = tuple(
            Placement(row.name, row.version, row.folder, row.is_loaded) for row in rows
        )
        newest = select(func.max(schema.aliases.c.number)).group_by(
            schema.aliases.c.name, schema.aliases.c.alias
        )
        query = select(schema.aliases).where(schema.aliases.c.number.in_(newest))
        found = connection.execute(query.order_by(schema.aliases.c.number)).all()
    leads = tuple(Lead(r.name, r.alias, json.loads(r.shares), r.shadow) for r in found)
    return Standing(number, placements, leads)


def place(engine: Engine, name: str, version: str, folder: Path, is_loaded: bool = True) -> int:
    """Have services know a release, in place of one of the same version; the generation."""
    row = {
        "name": name,
        "version": version,
        "folder": str(folder.resolve()),
        "is_loaded": is_loaded,
        "at_ms": now_ms(),
    }
    with writing(engine) as connection:
        placed = inserting(engine, schema.placements).values(row)
        placed = placed.on_conflict_do_update(
            index_elements=["name", "version"],
            set_={each: row[each] for each in ("folder", "is_loaded", "at_ms")},
        )
        connection.execute(placed)
        return changed(engine, connection)


def load(engine: Engine, name: str, version: str | None = None, is_loaded: bool = True) -> int:
    """Have a version be loaded or not, or all of a name; the generation. Raises UnknownName."""
    own = schema.placements.c
    which = own.name == name if version is None else and_(own.name == name, own.version == version)
    with writing(engine) as connection:
        done = connection.execute(
            update(schema.placements).where(which).values(is_loaded=is_loaded)
        )
        if not done.rowcount:
            raise UnknownName(
                f"No release {name!r}{f' of version {version!r}' if version else ''} is placed "
                "here; place one with `modelyard deploy add FOLDER`."
            )
        return changed(engine, connection)


def point(engine: Engine, lead: Lead) -> int:
    """Have an alias lead elsewhere; the generation. Raises SettingInvalid, UnknownName."""
    if not ALIAS.fullmatch(lead.alias):
        raise SettingInvalid(
            f"An alias has lower-case letters, digits and -, from a letter on; got {lead.alias!r}."
        )
    weights = lead.shares.values()
    if any(weight < 0 or weight > 10**6 for weight in weights) or not any(weights):
        raise SettingInvalid("The weights of an alias are whole numbers from 0, one of them above.")
    with writing(engine) as connection:
        _refuse_unknown(connection, lead)
        return _pointed(engine, connection, lead)


def roll_back(engine: Engine, name: str, alias: str) -> int:
    """Have an alias lead where it led before; the generation. Raises UnknownName."""
    own = schema.aliases.c
    query = select(schema.aliases).where(own.name == name, own.alias == alias)
    with writing(engine) as connection:
        rows = connection.execute(query.order_by(own.number.desc()).limit(2)).all()
        if len(rows) < 2:
            raise UnknownName(
                f"The alias {alias!r} of {name!r} has led nowhere else before; point it with "
                f"`modelyard deploy point {name} {alias} VERSION=1`."
            )
        before = rows[1]
        lead = Lead(name, alias, json.loads(before.shares), before.shadow)
        _refuse_unknown(connection, lead)
        return _pointed(engine, connection, lead)


def _pointed(engine: Engine, connection: Connection, lead: Lead) -> int:
    row = {
        "name": lead.name,
        "alias": lead.alias,
        "shares": json.dumps(lead.shares),
        "shadow": lead.shadow,
        "at_ms": now_ms(),
    }
    connection.execute(insert(schema.aliases).values(row))
    return changed(engine, connection)


def _refuse_unknown(connection: Connection, lead: Lead) -> None:
    own = schema.placements.c
    query = select(own.version).where(own.name == lead.name, own.is_loaded)
    known = set(connection.execute(query).scalars())
    wanted = {*lead.shares, *([lead.shadow] if lead.shadow else [])}
    if strange := sorted(wanted - known):
        raise UnknownName(
            f"No version {', '.join(strange)} of {lead.name!r} is loaded; there is "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    if lead.alias in known:
        raise SettingInvalid(f"{lead.alias!r} is a version of {lead.name!r}; take another alias.")


def follow(engine: Engine, worker: str, generation: int) -> None:
    """Say that a worker serves as of a generation."""
    own = schema.workers.c.id == worker
    with writing(engine) as connection:
        connection.execute(update(schema.workers).where(own).values(generation=generation))


def await_followed(engine: Engine, generation: int, seconds: float = FOLLOW_SECONDS) -> None:
    """Wait until every worker that serves does so as of a generation; raises ServiceBusy."""
    own = schema.workers.c
    late = select(func.count()).where(own.generation >= 0, own.generation < generation)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with reading(engine) as connection:
            if not connection.execute(late).scalar():
                return
        time.sleep(LOOK_SECONDS)
    raise ServiceBusy(
        f"Not every worker has followed within {seconds:.0f} s; see their logs for a release that "
        "cannot be loaded, or ask again a little later."
    )


def _generation(connection: Connection) -> int:
    query = select(schema.state.c.number).where(schema.state.c.name == GENERATION)
    return int(connection.execute(query).scalar() or 0)
