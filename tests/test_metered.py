"""A metered service over HTTP: keys, limits, idempotency, and what is counted when things break."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event, func, select
from tests.ledgers import own_postgres, pgserver
from tests.service_host import (
    COLUMN,
    commanded,
    info_of,
    open_runtime,
    served,
    signed,
    slowed,
    write_release,
)

from modelyard.core.project import Serve
from modelyard.ledger import customers, schema, usage
from modelyard.ledger.database import opened, reading
from modelyard.ledger.directory import Directory
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.revisions import ready
from modelyard.service.metering import Meter

PREDICT = "/v1/models/tiny/predict"
ALL = usage.Period(0, 2**40)
PATIENCE_SECONDS = 60
"""Whether a commit took place that broke off is only known once the database is back."""


@dataclass
class Customer:
    """Somebody with a key, who asks."""

    url: str
    key: str
    engine: Engine

    def ask(self, rows: int = 1, **headers: str) -> httpx.Response:
        body = {"rows": [{COLUMN: "a good film"}] * rows}
        return self.post(body, **headers)

    def post(self, body: Any, **headers: str) -> httpx.Response:
        own = {"Authorization": f"Bearer {self.key}"}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            f"{self.url}{PREDICT}",
            json=body,
            headers=own,
            trust_env=False,
            timeout=PATIENCE_SECONDS,
        )

    def used(self) -> tuple[int, int]:
        """Requests and rows that are counted; records and roll-ups agree on them."""
        assert not usage.differences(self.engine)
        [found] = usage.used(self.engine, ALL, ()) or [{"requests": 0, "rows": 0}]
        return found["requests"], found["rows"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed(write_release(tmp_path_factory.mktemp("metered") / "release"))


@pytest.fixture
def key(engine: Engine) -> str:
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, made = customers.add_key(engine, "shop", project="web")
    return made.text


@pytest.fixture
def meter(engine: Engine) -> Iterator[Meter]:
    directory, ledger = Directory(engine), Ledger(engine)
    yield Meter(directory, ledger)
    directory.close()
    ledger.close()


@pytest.fixture
def customer(release: Path, meter: Meter, engine: Engine, key: str) -> Iterator[Customer]:
    runtime = open_runtime(release)
    with served(runtime, info_of(runtime, release), Serve(max_rows=8), meter) as url:
        yield Customer(url, key, engine)


def test_a_request_needs_a_key_that_holds(customer: Customer, engine: Engine) -> None:
    assert customer.ask(2).status_code == 200
    for text in ("my_x", "sk-1", f"{customer.key[:-1]}x", f"my_{'0' * 12}_{'0' * 48}"):
        refused = Customer(customer.url, text, engine).ask()
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    _, expired = customers.add_key(engine, "old", project="web", days=0)
    assert "expired" in Customer(customer.url, expired.text, engine).ask().text
    _, other = customers.add_key(engine, "other", project="web", releases=["huge"])
    refused = Customer(customer.url, other.text, engine).ask()
    assert (refused.status_code, refused.json()["code"]) == (403, "not-allowed")
    customers.add_user(engine, "acme", "ann", "billing")
    _, billing = customers.add_key(engine, "ann's", user="ann")
    assert Customer(customer.url, billing.text, engine).ask().status_code == 403
    assert customer.used() == (1, 2)


def test_what_is_refused_or_fails_is_not_counted(
    release: Path, meter: Meter, engine: Engine, key: str
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("broken")

    runtime = slowed(open_runtime(release), fail)
    customers.set_limit(engine, "project", "web", "rows", 10)
    with served(runtime, info_of(runtime, release), Serve(max_rows=8), meter) as url:
        asks = Customer(url, key, engine)
        broken = asks.ask()
        assert broken.status_code == 500 and broken.headers["x-request-id"].startswith("req_")
        assert asks.post({"rows": []}).status_code == 422
        assert asks.ask(9).status_code == 413
        ends = time.monotonic() + 20
        while (found := _outcomes(engine)) != {"failed": 1, "refused": 2}:
            assert time.monotonic() < ends, found
        assert asks.used() == (0, 0)
        _await_nothing_held(engine)


def _await_nothing_held(engine: Engine) -> None:
    """What a worker holds for nobody it gives back after a second or two."""
    query = select(func.sum(schema.holds.c.amount))
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        with reading(engine) as connection:
            if not connection.execute(query).scalar():
                return
    raise AssertionError("something is still held")


def _outcomes(engine: Engine) -> Counter[str]:
    with reading(engine) as connection:
        return Counter(connection.execute(select(schema.records.c.outcome)).scalars())


def test_the_same_idempotency_key_gets_the_first_answer_once_counted(customer: Customer) -> None:
    first = customer.ask(2, Idempotency_Key="one")
    again = customer.ask(2, Idempotency_Key="one")
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    assert again.headers["content-type"] == first.headers["content-type"]
    other = customer.ask(1, Idempotency_Key="one")
    assert (other.status_code, other.json()["code"]) == (409, "request-repeated")
    assert customer.post({"rows": 1}, Idempotency_Key="two").status_code == 422
    assert customer.ask(1, Idempotency_Key="two").status_code == 200  # a refusal keeps no key
    assert customer.ask(1, Idempotency_Key="a b").status_code == 422
    assert customer.used() == (2, 3)


def test_an_answer_that_cannot_be_kept_lets_go_of_what_it_reserved(
    customer: Customer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers.set_limit(engine, "project", "web", "at_once", 1)

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("modelyard.service.metering._kept", fail)
    assert customer.ask(Idempotency_Key="once").status_code == 500
    monkeypatch.undo()
    assert customer.ask(Idempotency_Key="once").status_code == 200
    assert customer.used() == (1, 1)


def test_limits_are_told_and_kept(customer: Customer, engine: Engine) -> None:
    customers.set_limit(engine, "organisation", "acme", "rows", 5, "month")
    customers.set_limit(engine, "project", "web", "requests", 2, is_hard=False)
    reply = customer.ask(2)
    assert reply.headers["ratelimit"].startswith('"organisation-rows-month";r=3;t=')
    assert reply.headers["ratelimit-policy"].startswith('"organisation-rows-month";q=5;w=')
    assert "modelyard-warning" not in reply.headers
    refused = customer.ask(4)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "5 rows for each month, of which 3 are left, and the request needs 4" in refused.text
    assert "retry-after" not in customer.ask(6).headers  # would never fit
    assert customer.ask(3).headers["modelyard-warning"] == "project-requests-ever: 0 of 2 left"
    assert customer.ask().status_code == 429
    assert customer.used() == (2, 5)


@pytest.mark.parametrize("clock", ["back", "on"])
def test_a_clock_that_is_set_counts_every_answer(
    customer: Customer, engine: Engine, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    customers.set_limit(engine, "organisation", "acme", "rows", 100, "hour")
    assert customer.ask(1).status_code == 200
    shift_ms = 3_600_000 if clock == "on" else -3_600_000
    for module in ("service.metering", "ledger.transaction", "ledger.directory"):
        monkeypatch.setattr(
            f"modelyard.{module}.now_ms", lambda: time.time_ns() // 1_000_000 + shift_ms
        )
    assert customer.ask(2).status_code == 200
    monkeypatch.undo()
    assert customer.ask(4).status_code == 200
    assert customer.used() == (3, 7)


def test_a_full_disk_refuses_and_recovers_by_itself(release: Path, tmp_path: Path) -> None:
    engine = ready(opened(f"sqlite:///{tmp_path / 'full.sqlite3'}"))
    key = _customer_of(engine)
    with engine.connect() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    most = [pages + 1]

    def limited(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {most[0]}")

    event.listen(engine, "checkout", limited)
    with _serving(release, engine) as url:
        asks = Customer(url, key, engine)
        replies = [asks.ask() for _ in range(60)]
        met = Counter(each.status_code for each in replies)
        assert set(met) == {200, 503}
        full = next(each for each in replies if each.status_code == 503)
        assert full.headers["retry-after"] == "2"
        assert "full" not in full.json()["detail"]  # that is for the service's own log
        assert full.json()["code"] == "ledger-away"
        most[0] = 1 << 20
        _await_answer(asks)
        assert asks.used()[0] == met[200] + 1
    engine.dispose()


def _await_answer(asks: Customer) -> None:
    """Ask until it is answered; it is seen within a moment that the database takes rows again."""
    ends = time.monotonic() + 30
    while (again := asks.ask()).status_code != 200:
        assert again.status_code == 503 and time.monotonic() < ends


def _customer_of(engine: Engine) -> str:
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    customers.set_limit(engine, "project", "web", "rows", 10**6)
    return customers.add_key(engine, "shop", project="web")[1].text


@contextmanager
def _serving(release: Path, engine: Engine) -> Iterator[str]:
    directory, ledger = Directory(engine), Ledger(engine)
    runtime = open_runtime(release)
    meter = Meter(directory, ledger)
    with served(runtime, info_of(runtime, release), Serve(), meter) as url:
        yield url
    directory.close()
    ledger.close()


def test_a_database_that_goes_and_comes_back(release: Path) -> None:
    with own_postgres() as server, ThreadPoolExecutor(8) as pool:
        engine = ready(opened(server.get_uri()))
        key = _customer_of(engine)
        with _serving(release, engine) as url:
            asks = Customer(url, key, engine)
            assert asks.ask().status_code == 200
            sent = [pool.submit(asks.ask) for _ in range(60)]
            stop = ["stop", "-m", "immediate"]
            pgserver().pg_ctl(stop, pgdata=server.pgdata, user=server.system_user)
            replies = [each.result() for each in sent]
            met = Counter(each.status_code for each in replies)
            unknown = sum("is not known" in each.text for each in replies)
            gone = asks.ask()
            assert gone.status_code == 503 and gone.json()["code"] == "ledger-away"
            server.ensure_postgres_running()
            _await_answer(asks)
            assert set(met) <= {200, 503}
            # of what was being committed as it went, the answer has said that it may count
            assert 2 + met[200] <= asks.used()[0] <= 2 + met[200] + unknown
            _await_nothing_held(engine)
        engine.dispose()


def test_a_budget_holds_over_workers_and_a_revoked_key_is_refused_by_all(
    release: Path, url: str, engine: Engine, key: str
) -> None:
    customers.set_limit(engine, "project", "web", "rows", 100)
    words = ("--database", url, "--workers", "3", "--threads", "1", str(release))
    with commanded(*words) as (parent, at), ThreadPoolExecutor(32) as pool:
        asks = Customer(at, key, engine)
        met = Counter(pool.map(lambda _: asks.ask().status_code, range(200)))
        assert met == {200: 100, 429: 100}
        assert asks.used() == (100, 100)
        customers.revoke_key(engine, key.split("_")[1])
        revoked = time.monotonic()
        late = [status for status in _statuses(asks, pool) if time.monotonic() > revoked + 1]
        assert set(late) == {401}
        parent.terminate()
        assert parent.wait(30) == 0


def test_the_log_names_no_person_and_nothing_asked(release: Path, url: str, key: str) -> None:
    with commanded("--database", url, "--log", str(release)) as (parent, at):
        asks = httpx.Client(headers={"Authorization": f"Bearer {key}"}, trust_env=False)
        with asks:
            asks.post(f"{at}{PREDICT}", json={"rows": [{COLUMN: "a good film"}]})
            asks.get(f"{at}/v1/models?name=ann")
        parent.terminate()
        _, told = parent.communicate(timeout=30)
    asked, looked = [json.loads(line) for line in told.splitlines()]
    assert (asked["route"], asked["status"], asked["rows"]) == (
        "/v1/models/{name}/predict", 200, 1,
    )  # fmt: skip
    assert asked["key"] == key.split("_")[1] and asked["release"] == "tiny"
    assert looked["route"] == "/v1/models"
    for secret in (key.split("_")[2], "good film", "ann", "127.0.0.1"):
        assert secret not in told


def _statuses(asks: Customer, pool: ThreadPoolExecutor) -> Iterator[int]:
    """Of requests over new connections, for two seconds: some to each worker."""
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        yield from pool.map(lambda _: asks.ask().status_code, range(12))
