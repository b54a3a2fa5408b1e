"""Two tenants of a metered service, with a key of every role, and the service in this process."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from sqlalchemy import Engine, event, insert, select, update
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient
from tests.service_host import info_of, open_runtime, write_release

from modelyard.core.project import Serve
from modelyard.ledger import customers, schema
from modelyard.ledger.database import reading
from modelyard.ledger.roles import USER_ROLES
from modelyard.runtime.runtime import Runtime
from modelyard.service.app import Service
from modelyard.service.following import Follower
from modelyard.service.repository import Repository
from modelyard.service.repository import router as repository_router
from modelyard.serving import metered

HOUR_S = 1_741_003_200
MONTH = "2025-03"
"""The month that HOUR_S is in, which is over."""
TABLES = ("organisations", "projects", "users", "keys", "limits", "prices", "state", "rollups")
Row = dict[str, Any]


@dataclass
class Tenant:
    """An organisation, with ids of what it has, and the text of a key of each role."""

    engine: Engine
    id: str
    name: str
    project: str
    users: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    _spare: dict[str, str] = field(default_factory=dict)

    def spare(self, kind: str, subject: str = "organisation") -> str:
        """The id of one that nothing else rests on, the same until it is spent."""
        place = f"{kind} of {subject}"
        if place not in self._spare:
            self._spare[place] = self._made(kind, subject)
        return self._spare[place]

    def spend(self) -> None:
        """Have others made from now on."""
        self._spare.clear()

    def _made(self, kind: str, subject: str) -> str:
        name, engine = f"{self.name} {kind} {secrets.token_hex(4)}", self.engine
        match kind:
            case "project":
                row = customers.add_project(engine, self.id, name)
            case "user":
                row = customers.add_user(engine, self.id, name, "viewer")
            case "key":
                row, _ = customers.add_key(engine, name, project=self.project)
            case "limit":
                owner = self.id if subject == "organisation" else self.spare(subject)
                made = customers.set_limit(
                    engine, subject, owner, "rows", 10**9, "hour", set_by="customer"
                )
                return str(made.id)
        return str(row["id"])


@dataclass
class House:
    """A metered service, its database, and two tenants of it; none knows of the other."""

    client: TestClient
    engine: Engine
    own: Tenant
    other: Tenant
    admin: str
    on_loop: list[str]
    """What was asked of the database where requests are answered, which is to wait for nothing."""

    def ask(self, key: str | None, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A reply to one who has that key."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        told = {} if body is None else {"json": body}
        return self.client.request(method, path, headers=headers, **told, **more)

    def get(self, key: str, path: str) -> Any:
        """What is told at a path."""
        reply = self.ask(key, "GET", path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def rows(self) -> dict[str, list[Row]]:
        """All that the database holds of customers."""
        with reading(self.engine) as connection:
            return {
                name: [
                    dict(row)
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key)
                    ).mappings()
                ]
                for name in TABLES
                if (table := schema.TABLES.tables[name]) is not None
            }


def tenant(engine: Engine, name: str) -> Tenant:
    """An organisation with a project, usage, limits, and users and keys of every role."""
    org = customers.add_organisation(engine, name)["id"]
    made = Tenant(engine, org, name, customers.add_project(engine, org, f"{name} web")["id"])
    for role in USER_ROLES:
        user = customers.add_user(engine, org, f"{name} {role}", role)
        made.users[role] = user["id"]
        made.keys[role] = customers.add_key(engine, f"{name} {role}", user=user["id"])[1].text
    made.keys["service"] = customers.add_key(engine, f"{name} shop", project=made.project)[1].text
    for state, column in (("expired", "expires_ms"), ("revoked", "revoked_ms")):
        row, key = customers.add_key(engine, f"{name} {state}", user=made.users["owner"])
        own = update(schema.keys).where(schema.keys.c.id == row["id"])
        with engine.begin() as connection:
            connection.execute(own.values({column: 1}))
        made.keys[state] = key.text
    customers.set_limit(engine, "organisation", org, "requests", 10**9, "day")
    second = customers.add_project(engine, org, f"{name} second")["id"]
    with engine.begin() as connection:
        for number, project in enumerate((made.project, second), start=1):
            connection.execute(insert(schema.rollups).values(used(org, project, 1000 * number)))
    return made


def used(organisation: str, project: str, rows: int) -> Row:
    """Usage of a project."""
    counts = dict.fromkeys(("requests", "tokens", "images", "compute_us", "spend_micros"), 1)
    place = {"organisation_id": organisation, "project_id": project, "key_id": "k"}
    return {**place, "hour_s": HOUR_S, "release": "tiny", "version": "3", "rows": rows, **counts}


def unlisted() -> APIRouter:
    """A route that nobody has thought of in access.RIGHTS."""
    routes = APIRouter()

    @routes.post("/v1/unlisted/{organisation}", response_model=dict[str, str])
    async def nobody_thought_of_it() -> Response:
        return JSONResponse({"it": "is open"})

    return routes


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny release."""
    return write_release(tmp_path_factory.mktemp("tenants") / "release")


@pytest.fixture(scope="session")
def tiny_runtime(tiny_folder: Path) -> Runtime:
    """The tiny release, opened."""
    return open_runtime(tiny_folder)


@pytest.fixture
def house(engine: Engine, url: str, tiny_folder: Path, tiny_runtime: Runtime) -> Iterator[House]:
    """A metered service with two tenants."""
    own, other = tenant(engine, "Acme"), tenant(engine, "Quorvax")
    _, admin = customers.add_key(engine, "me")
    on_loop: list[str] = []
    with metered(url) as meter:
        event.listen(meter.engine, "before_cursor_execute", _watch(on_loop))
        service = Service(meter=meter)
        service.add(tiny_runtime, info_of(tiny_runtime, tiny_folder), Serve.model_validate({}))
        follower = Follower(engine, meter._ledger, service, lambda folder: None, print)
        service.more += [
            repository_router(Repository(engine, follower, service.catalogue)),
            unlisted(),
        ]
        with TestClient(service.app(), raise_server_exceptions=False) as client:
            yield House(client, engine, own, other, admin.text, on_loop)


def _watch(on_loop: list[str]) -> Any:
    def asked(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        on_loop.append(statement)

    return asked


def filled(path: str, ids: Mapping[str, str]) -> str:
    """A path with its parameters; raises KeyError for one that nobody knows."""
    return path.format_map(dict(ids))
