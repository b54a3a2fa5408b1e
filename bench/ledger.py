"""The ledger: its own rate, what metering costs a service, a month's usage, and kill -9."""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from bench.figures import Figure, counted, measures, of_runs
from bench.kill_service import CLIENTS, killed
from bench.projects import from_sample, parts, rows_of, run
from modelyard.checks.latency import quantile
from modelyard.ledger import customers, usage
from modelyard.ledger.database import now_ms, opened, writing
from modelyard.ledger.entries import Claim, Demand, Entry, Record
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Limit, Usage
from modelyard.ledger.revisions import ready
from modelyard.service.load import Load, Request, ask, offer, row_documents, served

RUNS = 5
SECONDS = 4.0
WRITERS = 256
RATES = {"sqlite": 5000, "postgresql": 4000}
KILLS = 100
MANY_RECORDS = 20_000_000
HOURS = 720


@contextmanager
def databases() -> Iterator[dict[str, Engine]]:
    """An empty ledger on each kind of database, on this disk."""
    from tests.ledgers import own_postgres

    with own_postgres() as server, tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/ledger.sqlite3", "postgresql": server.get_uri()}
        engines = {kind: ready(opened(url)) for kind, url in urls.items()}
        try:
            yield engines
        finally:
            for engine in engines.values():
                engine.dispose()


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def _customer(engine: Engine) -> tuple[str, Limit]:
    """A key of a project, and a limit that is never reached but always looked at."""
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    limit = customers.set_limit(engine, "project", "web", "rows", 10**12, "month")
    return customers.add_key(engine, "shop", project="web")[1].text, limit


@measures("ledger-rate")
def ledger_rate() -> list[Figure]:
    """Records a second that are reserved for and settled, each awaited, without a service."""
    found = []
    with databases() as engines:
        for kind, engine in engines.items():
            _, limit = _customer(engine)
            runs = [_settled_per_s(engine, limit) for _ in range(RUNS)]
            said = (
                f"{WRITERS} writers of one process, each reserves within a limit, settles, and "
                "waits for both to be on disk; each record in the roll-ups too"
            )
            name = f"ledger alone, {kind}: settled records a second"
            found.append(of_runs(name, runs, RATES[kind], ">=", "records/s", said))
    return found


def _settled_per_s(engine: Engine, limit: Limit) -> float:
    ledger = Ledger(engine)
    count = 0

    async def writer(ends: float) -> None:
        nonlocal count
        while time.perf_counter() < ends:
            demand = Demand(limit, limit.window_s(time.time()), 1, None)
            held = await ledger.reserve(Claim((demand,)))
            await ledger.settle(Entry(_record(), held))  # type: ignore[arg-type]
            count += 1

    async def writers() -> None:
        ends = time.perf_counter() + SECONDS
        await asyncio.gather(*(writer(ends) for _ in range(WRITERS)))

    began = time.perf_counter()
    asyncio.run(writers())
    took = time.perf_counter() - began
    ledger.close()
    return count / took


def _record() -> Record:
    used = Usage(rows=1, tokens=27, compute_us=1500)
    return Record(
        f"req_{secrets.token_hex(8)}", now_ms(), "org", "prj", "key", "reviews", "1",
        "/v1/models/{name}/predict", "answered", 200, used, 20_000, 10_000,
    )  # fmt: skip


@measures("metering")
def metering() -> list[Figure]:
    """The same release with keys, limits, ledger and journal, and with none of it, in turn."""
    folder = from_sample("reviews")
    report = run(folder, "train.seed=1")
    release = Path(report["release"])
    texts = [text for text, _ in rows_of(parts(folder) / "test.parquet")]
    documents = row_documents([{"text": text} for text in texts])
    path = f"/v1/models/{report['name']}/predict"
    found = []
    with databases() as engines:
        for kind, engine in engines.items():
            key, _ = _customer(engine)
            options = ("--database", _url(engine))
            with ExitStack() as stack:
                off, _ = stack.enter_context(served(release))
                on, _ = stack.enter_context(served(release, options, dev=False))
                plain = Request.to(off, path, documents)
                metered = Request.to(on, path, documents, {"Authorization": f"Bearer {key}"})
                found += _compared(kind, plain, metered)
            assert not usage.differences(engine)
    return found


def _compared(kind: str, plain: Request, metered: Request) -> list[Figure]:
    shares, alone, half = [], [], []
    rates: list[tuple[float, float]] = []
    for _ in range(RUNS):
        off, on = (ask(each, CLIENTS, SECONDS) for each in (plain, metered))
        rates.append((off.rows_per_s, on.rows_per_s))
        shares.append(on.rows_per_s / off.rows_per_s)
        alone.append(_p50_ms(ask(metered, 1, 2)) - _p50_ms(ask(plain, 1, 2)))
        rate = off.rows_per_s / 2
        half.append(_p50_ms(offer(metered, rate, 2)) - _p50_ms(offer(plain, rate, 2)))
    off_rate, on_rate = (statistics.median(each) for each in zip(*rates, strict=True))
    said = (
        f"reviews, MiniLM int8, {kind}, key, a limit, ledger and journal on against `--dev`, one "
        f"row a request, in turn; {on_rate:.0f} against {off_rate:.0f} rows/s with {CLIENTS} "
        "clients"
    )
    name = f"metering, {kind}"
    return [
        of_runs(f"{name}: rows/s on against off", shares, 0.9, ">=", "×", said),
        of_runs(f"{name}: added at p50, one client", alone, 1, "<=", "ms", said),
        of_runs(f"{name}: added at p50, half of the top load", half, 1, "<=", "ms", said),
    ]


def _p50_ms(load: Load) -> float:
    return float(quantile(load.milliseconds, 50).value)


@measures("ledger-kill")
def ledger_kill() -> list[Figure]:
    """Kill -9: of a worker, or of the whole service each fourth time, under 32 clients."""
    from tests.service_host import signed, write_release

    found = []
    with databases() as engines, tempfile.TemporaryDirectory() as folder:
        release = signed(write_release(Path(folder) / "release"))
        for kind, engine in engines.items():
            key, _ = _customer(engine)
            verdict = killed(release, _url(engine), engine, key, KILLS)
            said = (
                f"{kind}, 3 workers, {CLIENTS} clients that send a request again under its "
                f"idempotency key until it is answered; {verdict.answered:,} requests answered, "
                f"{verdict.broken:,} sendings cut short, {verdict.replayed:,} answers that had "
                "been counted before the kill and were given after it"
            )
            wrong = [repr(verdict)] * verdict.failures
            name = f"ledger, {kind}: books that differ from the answers after {KILLS} kills"
            found.append(counted(name, wrong, verdict.answered, said))
    return found


@measures("usage-month")
def usage_month() -> list[Figure]:
    """A month's usage of one customer out of twenty million records, and the check of all."""
    found = []
    with databases() as engines:
        for kind, engine in engines.items():
            _fill(engine)
            usage.rebuild(engine)
            period = usage.Period(0, HOURS * 3600)
            scope = customers.Scope("org-7")
            runs = [_seconds_of(engine, period, scope) for _ in range(RUNS)]
            began = time.perf_counter()
            assert not usage.differences(engine)
            checked = time.perf_counter() - began
            said = (
                f"{kind}, {MANY_RECORDS:,} records of 20 customers with 40 keys over {HOURS} "
                f"hours, by key and release; all records added up anew and compared in "
                f"{checked:.0f} s"
            )
            name = f"ledger, {kind}: a month's usage of one customer"
            found.append(of_runs(name, runs, 1, "<", "s", said))
    return found


def _seconds_of(engine: Engine, period: usage.Period, scope: customers.Scope) -> float:
    began = time.perf_counter()
    rows = usage.used(engine, period, ("key_id", "release"), scope)
    assert sum(row["requests"] for row in rows) == MANY_RECORDS // 20
    return time.perf_counter() - began


NUMBERS = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s "
    "WHERE n + 1 < :many) ",
    "postgresql": "WITH s AS (SELECT generate_series(0, CAST(:many AS BIGINT) - 1) AS n) ",
}


def _fill(engine: Engine) -> None:
    """Records of a month in their order, made by the database itself."""
    kind = engine.dialect.name
    insert = (
        "INSERT INTO records (id, at_ms, organisation_id, project_id, key_id, release, version, "
        "route, outcome, status, requests, rows, tokens, images, compute_us, spend_micros, "
        "latency_us, queue_us) "
    )
    values = (
        "SELECT 'req_' || n, n * :span_ms / :many, 'org-' || (n % 20), "
        "'prj-' || (n % 20), 'key-' || (n % 40), 'reviews', '1', '/v1', 'answered', 200, 1, "
        "1 + n % 3, 20 + n % 11, 0, 1500, 0, 20000, 10000 FROM s"
    )
    order = NUMBERS[kind] + insert if kind == "sqlite" else insert + NUMBERS[kind]
    with writing(engine) as connection:
        numbers = {"many": MANY_RECORDS, "span_ms": HOURS * 3_600_000}
        connection.execute(text(order + values), numbers)
