"""Both kinds of client, and the services that they ask: with a ledger, without, and failing."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from tests.between import Between, between
from tests.service_host import info_of, open_runtime, served, write_release

from modelyard.client import AsyncClient, Client
from modelyard.core.project import Serve
from modelyard.ledger import customers, schema, usage
from modelyard.ledger.database import reading
from modelyard.runtime.runtime import Runtime
from modelyard.serving import metered

LIMITS = Serve(max_rows=64, max_characters=500, max_body_bytes=20_000)
ROWS = [{"text": "good film"}, {"text": "dull"}, {"text": "好 坏"}]
KINDS = ("sync", "async")


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def tiny_runtime(tiny: Path) -> Runtime:
    return open_runtime(tiny)


@pytest.fixture(scope="session")
def free(tiny: Path, tiny_runtime: Runtime) -> Iterator[str]:
    """The URL of a service that asks nobody for a key."""
    with served(tiny_runtime, info_of(tiny_runtime, tiny), LIMITS) as address:
        yield address


@pytest.fixture
def failing(free: str) -> Iterator[Between]:
    with between(free) as made:
        yield made


@dataclass
class Customer:
    """A customer with a key, and the service that counts what it asks."""

    url: str
    key: str
    project: str
    engine: Engine

    def used(self) -> tuple[int, int]:
        """Requests and rows, as the ledger has them."""
        found = usage.used(self.engine, usage.Period(0, 2**40), by=["organisation_id"])
        return (found[0]["requests"], found[0]["rows"]) if found else (0, 0)

    def journal(self) -> dict[str, int]:
        """The status of each request, by its id."""
        with reading(self.engine) as connection:
            columns = schema.records.c
            found = connection.execute(select(columns.id, columns.status))
            return {each.id: each.status for each in found}


@contextlib.contextmanager
def counted(engine: Engine, url: str, runtime: Runtime, folder: Path) -> Iterator[Customer]:
    organisation = customers.add_organisation(engine, "acme")["id"]
    project = customers.add_project(engine, organisation, "shop")["id"]
    _, made = customers.add_key(engine, "program", project=project)
    with (
        metered(url) as meter,
        served(runtime, info_of(runtime, folder), LIMITS, meter) as address,
    ):
        yield Customer(address, made.text, project, engine)


@pytest.fixture
def customer(engine: Engine, url: str, tiny_runtime: Runtime, tiny: Path) -> Iterator[Customer]:
    with counted(engine, url, tiny_runtime, tiny) as made:
        yield made


class Asked:
    """Calls a method of either kind of client; `waits` is what was to be waited for."""

    def __init__(self, kind: str):
        self.kind = kind
        self.waits: list[float] = []
        self.sleep: Callable[[float], object] = lambda wait_s: None

    def __call__(self, url: str, method: str, *args: Any, **more: Any) -> Any:
        names = ("key", "timeout_s", "retries", "total_s")
        options = {name: more.pop(name) for name in names if name in more}
        if self.kind == "async":
            return asyncio.run(self._later(url, method, args, more, options))
        with Client(url, sleep=self._slept, **options) as client:
            found = getattr(client, method)(*args, **more)
            return list(found) if method == "predict_many" else found

    async def _later(
        self, url: str, method: str, args: Any, more: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        async with AsyncClient(url, sleep=self._slept_later, **options) as client:
            found = getattr(client, method)(*args, **more)
            if method == "predict_many":
                return [answer async for answer in found]
            return await found

    def _slept(self, wait_s: float) -> None:
        self.waits.append(wait_s)
        self.sleep(wait_s)

    async def _slept_later(self, wait_s: float) -> None:
        await asyncio.to_thread(self._slept, wait_s)


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def many_rows(count: int) -> list[dict[str, str]]:
    words = ("good", "bad", "dull", "warm", "film")
    return [{"text": " ".join(words[n % k] for k in (2, 3, 5))} for n in range(count)]
