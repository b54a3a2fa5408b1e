"""What leaves the ledger: events for billing, older days in files, backups; on both databases."""

import asyncio
import io
import json
import os
import signal
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, func, insert, select
from tests.test_ledger import record

from modelyard.cli import usage as usage_command
from modelyard.cli.main import main
from modelyard.core.errors import BackupUnusable, LedgerAway, RowsUnreadable, SettingInvalid
from modelyard.ledger import backup, customers, exports, journal, schema, usage
from modelyard.ledger.database import now_ms, opened, reading, tables
from modelyard.ledger.entries import Claim, Demand, Entry, Kept, Record, Repeat
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import USED, Usage
from modelyard.ledger.revisions import ready

NOON_MS = 1_793_707_200_123
"""Noon of 2026-11-03 (UTC), and a little."""
DAY_MS = 86_400_000


def settled(engine: Engine, *records: Record) -> None:
    ledger = Ledger(engine)

    async def run() -> None:
        await asyncio.gather(*(ledger.settle(Entry(each)) for each in records))

    asyncio.run(run())
    ledger.close()


def rows_of(engine: Engine, table: Any) -> list[dict[str, Any]]:
    with reading(engine) as connection:
        query = select(table).order_by(*table.primary_key)
        return [dict(row) for row in connection.execute(query).mappings()]


def events(engine: Engine, form: str, **wanted: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    exports.write(engine, form, exports.Wanted(**wanted), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


ONE = record(
    Usage(rows=3, tokens=40, compute_us=1500, spend_micros=7),
    id="req_0123456789abcdef",
    at_ms=NOON_MS,
    organisation_id="org_1",
)
MEASURES = {
    "requests": 1, "rows": 3, "tokens": 40, "images": 0, "compute_us": 1500, "spend_micros": 7,
}  # fmt: skip
PLACE = {"project_id": "p", "key_id": "k", "release": "tiny", "version": "3"}
ENVELOPE = {
    "specversion": "1.0",
    "id": "req_0123456789abcdef",
    "source": "urn:modelyard:ledger",
    "type": "modelyard.request",
    "subject": "org_1",
    "time": "2026-11-03T12:00:00.123Z",
    "datacontenttype": "application/json",
}
EVENTS = {
    "cloudevents": [
        ENVELOPE
        | {
            "data": {"number": 1, "organisation_id": "org_1", **PLACE, "route": "/v1"}
            | {**MEASURES, "latency_us": 1000, "queue_us": 10}
        }
    ],
    "openmeter": [ENVELOPE | {"data": MEASURES | PLACE}],
    "lago": [
        {
            "event": {
                "transaction_id": "req_0123456789abcdef",
                "external_subscription_id": "org_1",
                "code": "modelyard_usage",
                "timestamp": "1793707200.123",
                "properties": MEASURES | {"release": "tiny", "version": "3"},
            }
        }
    ],
    "stripe": [
        {
            "event_name": f"modelyard_{name}",
            "identifier": f"req_0123456789abcdef-{name}",
            "timestamp": 1_793_707_200,
            "payload": {"stripe_customer_id": "org_1", "value": str(value)},
        }
        for name, value in MEASURES.items()
        if value
    ],
}


@pytest.mark.parametrize("form", exports.FORMS)
def test_an_answered_request_is_an_event_as_each_receiver_takes_it(
    engine: Engine, form: str
) -> None:
    refused = record(Usage(requests=0), outcome="refused", status=429)
    settled(engine, ONE)
    settled(engine, refused)
    assert events(engine, form) == EVENTS[form]


def test_the_forms_of_the_command_are_those_there_are() -> None:
    assert tuple(exports.FORMS) == usage_command.FORMS


def test_no_identifier_for_stripe_is_too_long_or_there_twice(engine: Engine) -> None:
    settled(engine, *(record(Usage(1, 2, 3, 4, 5, 6), id=f"{n:040d}") for n in range(3)))
    found = [each["identifier"] for each in events(engine, "stripe")]
    assert len(set(found)) == len(found) == 3 * len(USED)
    assert max(map(len, found)) <= 100


def test_the_events_of_a_month_come_to_what_its_roll_ups_say(engine: Engine) -> None:
    first, last = 1_793_491_200_000, 1_796_083_199_999  # of 2026-11, in ms
    settled(engine, *(record(Usage(rows=n), at_ms=last + n - 5) for n in range(1, 10)))
    settled(engine, *(record(Usage(rows=n), at_ms=first + n - 5) for n in range(1, 10)))
    november = usage_command.month("2026-11")
    [told] = usage.used(engine, november, by=["organisation_id"])
    found = [each["data"] for each in events(engine, "cloudevents", period=november)]
    assert {name: sum(each[name] for each in found) for name in USED} == {
        name: told[name] for name in USED
    }
    assert [each["number"] for each in found] == sorted(each["number"] for each in found)


def test_an_export_goes_on_after_the_last_one(
    engine: Engine, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["usage", "--export", "lago", "--database", url, "--json"]
    settled(engine, *(record(Usage(rows=1)) for _ in range(3)))
    assert main([*words, "--after", "0"]) == 0
    told = capsys.readouterr()
    first = [json.loads(line) for line in told.out.splitlines()]
    last = json.loads(told.err)["last"]
    settled(engine, *(record(Usage(rows=1)) for _ in range(2)))
    file = tmp_path / "events.jsonl"
    assert main([*words, "--after", str(last), "--out", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["last"] == last + 2
    both = first + [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    ids = [each["event"]["transaction_id"] for each in both]
    assert sorted(ids) == sorted(row["id"] for row in rows_of(engine, schema.records))
    assert main([*words, "--after", str(last), "--out", str(file)]) == 2  # it is there


def test_a_record_whose_number_is_lower_but_comes_later_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("one writes at a time")
    late = engine.connect()
    late.execute(insert(schema.records).values(record(Usage(rows=1)).to_row()))
    settled(engine, record(Usage(rows=1)))
    monkeypatch.setattr(exports.time, "sleep", lambda _: late.commit())
    assert [each["data"]["number"] for each in events(engine, "cloudevents")] == [1, 2]
    late.close()


def test_who_never_stops_writing_is_not_waited_for_for_good(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("one writes at a time")
    monkeypatch.setattr(exports, "WAIT_SECONDS", 0)
    with engine.connect() as late:
        late.execute(insert(schema.records).values(record(Usage(rows=1)).to_row()))
        with pytest.raises(LedgerAway, match="has been writing"):
            events(engine, "cloudevents")


def test_organisations_get_the_ids_that_the_receiver_knows(
    engine: Engine, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settled(engine, ONE)
    file = tmp_path / "ids.json"
    words = ["usage", "--export", "stripe", "--month", "2026-11", "--database", url]
    file.write_text('{"org_1": "cus_1"}')
    assert main([*words, "--ids", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert {json.loads(line)["payload"]["stripe_customer_id"] for line in told} == {"cus_1"}
    for wrong, sentence in (("{}", "org_1 has no id"), ("[1", "no JSON object"), ("[]", "object")):
        file.write_text(wrong)
        assert main([*words, "--ids", str(file)]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--out", "x"], ["--after", "1"], ["--export", "lago", "--after", str(2**63)]]
)
def test_options_of_an_export_that_make_no_sense_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'l.sqlite3'}"
    assert main(["usage", *words, "--database", url]) == 2
    assert "--after" in capsys.readouterr().err


def of_days(*days_ago: int) -> list[Record]:
    """A record for each; the place of each is its number of days."""
    return [
        record(Usage(rows=each + 1, tokens=3), at_ms=now_ms() - each * DAY_MS) for each in days_ago
    ]


def filed(folder: Path) -> list[dict[str, Any]]:
    found = pa.concat_tables(
        [pq.ParquetFile(path).read() for path in journal.files_in(folder)]
        or [pa.table({"number": pa.array([], pa.int64())})]
    )
    return sorted(found.to_pylist(), key=lambda row: row["number"])


def whole(engine: Engine, folder: Path) -> list[dict[str, Any]]:
    """The records wherever they lie; those in both places once."""
    in_both = {row["number"]: row for row in [*filed(folder), *rows_of(engine, schema.records)]}
    return [in_both[number] for number in sorted(in_both)]


def test_whole_days_move_into_files_and_nothing_is_lost(engine: Engine, tmp_path: Path) -> None:
    settled(engine, *of_days(40, 40, 37, 36, 35, 2, 0))
    before, rollups = rows_of(engine, schema.records), rows_of(engine, schema.rollups)
    done = journal.compact(engine, tmp_path)
    assert (done.records, done.files) == (4, 3)
    days = sorted(path.parent.name for path in journal.files_in(tmp_path))
    assert len(set(days)) == 3
    assert whole(engine, tmp_path) == before
    assert len(rows_of(engine, schema.records)) == 3
    assert usage.differences(engine, tmp_path) == []
    usage.rebuild(engine, tmp_path)
    assert rows_of(engine, schema.rollups) == rollups
    assert journal.compact(engine, tmp_path).records == 0


def test_roll_ups_are_not_checked_or_rebuilt_from_a_part_of_the_records(
    engine: Engine, tmp_path: Path
) -> None:
    settled(engine, *of_days(41, 40, 0))
    journal.compact(engine, tmp_path)
    rollups = rows_of(engine, schema.rollups)
    other = tmp_path / "other"
    other.mkdir()
    for folder in (None, other):
        with pytest.raises(SettingInvalid, match="give the folder that has all"):
            usage.differences(engine, folder)
        with pytest.raises(SettingInvalid, match="give the folder that has all"):
            usage.rebuild(engine, folder)
    with pytest.raises(SettingInvalid, match="no folder"):
        usage.differences(engine, tmp_path / "nowhere")
    assert rows_of(engine, schema.rollups) == rollups


def test_a_roll_up_that_is_wrong_is_seen_though_its_records_are_in_files(
    engine: Engine, tmp_path: Path
) -> None:
    settled(engine, *of_days(40, 0))
    journal.compact(engine, tmp_path)
    with engine.begin() as connection:
        connection.execute(schema.rollups.update().values(tokens=4))
    assert [each.records["tokens"] for each in usage.differences(engine, tmp_path)] == [3, 3]


def test_the_last_record_stays_so_that_no_number_is_given_twice(
    engine: Engine, tmp_path: Path
) -> None:
    settled(engine, *of_days(50, 49, 48))
    assert journal.compact(engine, tmp_path).records == 2
    settled(engine, *of_days(47, 0))
    assert [row["number"] for row in rows_of(engine, schema.records)] == [3, 4, 5]
    assert journal.compact(engine, tmp_path).records == 2
    assert [row["number"] for row in whole(engine, tmp_path)] == [1, 2, 3, 4, 5]
    assert usage.differences(engine, tmp_path) == []


def test_a_day_of_more_records_than_a_file_takes_is_several_files(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FILE_ROWS", 3)
    monkeypatch.setattr(journal, "AT_ONCE_ROWS", 2)
    settled(engine, *of_days(*[40] * 7, 0))
    before = rows_of(engine, schema.records)
    assert journal.compact(engine, tmp_path).files == 3
    assert whole(engine, tmp_path) == before
    assert len(filed(tmp_path)) == 7


LINES_KILLED_AT = ("journal.py", "files.py")


def killed_at(nth: int, work: Callable[[], object]) -> bool:
    """Do work in a process that is killed when it comes to its nth line; whether it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyarrow has threads, and can be forked
        child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    seen = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(LINES_KILLED_AT):
            return None
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        if len(seen) > nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    code = 1
    try:
        sys.settrace(trace)
        work()
        code = 0
    finally:
        os._exit(code)


def test_a_kill_at_any_line_neither_loses_nor_doubles_a_record(
    engine: Engine, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time a few lines later, until one is not killed; and each time another goes on."""
    monkeypatch.setattr(journal, "FILE_ROWS", 2)
    settled(engine, *of_days(40, 40, 40, 0))
    before, rollups = (rows_of(engine, each) for each in (schema.records, schema.rollups))
    nth, is_killed, left_in_both = 0, True, 0
    while is_killed:
        folder = tmp_path / str(nth)
        is_killed = killed_at(nth, lambda into=folder: journal.compact(opened(url), into))
        if journal_begun := folder.is_dir():
            assert whole(engine, folder) == before
            assert usage.differences(engine, folder) == []
            in_files, left = numbers(filed(folder)), numbers(rows_of(engine, schema.records))
            left_in_both += bool(set(in_files) & set(left))
        journal.compact(engine, folder)
        assert numbers(filed(folder)) == [1, 2, 3], journal_begun
        assert numbers(rows_of(engine, schema.records)) == [4]
        assert not list(folder.rglob("*.draft"))
        assert usage.differences(engine, folder) == []
        put_back(engine, before, rollups)
        nth += 3
    assert nth > 90
    assert left_in_both, "no kill came between a file and what it has left in the table"


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["number"] for row in rows]


def put_back(engine: Engine, records: list[Any], rollups: list[Any]) -> None:
    with engine.begin() as connection:
        for table in (schema.records, schema.rollups, schema.state):
            connection.execute(table.delete())
        connection.execute(insert(schema.records), records)
        connection.execute(insert(schema.rollups), rollups)


def test_another_ledgers_folder_is_refused_before_anything_is_deleted(
    engine: Engine, tmp_path: Path
) -> None:
    other = ready(opened(f"sqlite:///{tmp_path / 'another.sqlite3'}"))
    for each in (engine, other):
        settled(each, *of_days(40, 40, 0))
    journal.compact(other, tmp_path / "folder")
    with pytest.raises(SettingInvalid, match="another ledger's"):
        journal.compact(engine, tmp_path / "folder")
    assert len(rows_of(engine, schema.records)) == 3
    assert usage.differences(engine) == []


@pytest.mark.parametrize("damage", ["cut off", "another table"])
def test_a_file_that_is_damaged_is_named(engine: Engine, tmp_path: Path, damage: str) -> None:
    settled(engine, *of_days(40, 39, 0))
    journal.compact(engine, tmp_path)
    file = journal.files_in(tmp_path)[0]
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        pq.write_table(pa.table({"number": [1]}), file)
    with pytest.raises(RowsUnreadable, match=file.name):
        usage.differences(engine, tmp_path)


def test_what_else_lies_in_the_folder_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    settled(engine, *of_days(40, 39, 0))
    journal.compact(engine, tmp_path)
    stranger = journal.files_in(tmp_path)[0].with_name("notes-of-may.parquet")
    stranger.write_text("no Parquet")
    assert journal.compact(engine, tmp_path).records == 0
    assert usage.differences(engine, tmp_path) == []
    assert stranger.is_file()


def test_two_do_not_compact_at_once(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither into one folder, nor into two."""
    settled(engine, *of_days(40, 39, 0))
    before = rows_of(engine, schema.records)
    written = journal._written

    def meanwhile(folder: Path, part: pa.Table) -> Path:
        monkeypatch.setattr(journal, "_written", written)
        with pytest.raises(SettingInvalid, match="Another process compacts"):
            journal.compact(engine, tmp_path / "one")
        journal.compact(engine, tmp_path / "two")
        return written(folder, part)

    monkeypatch.setattr(journal, "_written", meanwhile)
    with pytest.raises(SettingInvalid, match="into another folder"):
        journal.compact(engine, tmp_path / "one")
    assert filed(tmp_path / "one") == []
    assert whole(engine, tmp_path / "two") == before
    assert usage.differences(engine, tmp_path / "two") == []


def test_an_export_says_that_records_were_moved(engine: Engine, tmp_path: Path) -> None:
    settled(engine, *of_days(70, 70, 0))
    journal.compact(engine, tmp_path)
    with pytest.raises(SettingInvalid, match="moved out of the database"):
        events(engine, "lago", after=1)
    assert len(events(engine, "lago", after=2)) == 1
    now_s = now_ms() // 1000
    assert len(events(engine, "lago", period=usage.Period(now_s - 86_400, now_s + 60))) == 1
    with pytest.raises(SettingInvalid, match="moved out of the database"):
        events(engine, "lago", period=usage.Period(now_s - 71 * 86_400, now_s))


def answer(key: str, hours_ago: int, status: int | None = 200) -> dict[str, Any]:
    return {
        "scope": "p", "idempotency_key": key, "digest": b"1" * 32, "status": status, "body": b"b",
        "head": "{}", "at_ms": now_ms() - hours_ago * 3_600_000,
    }  # fmt: skip


def test_what_nobody_asks_for_is_deleted(engine: Engine, tmp_path: Path) -> None:
    org = customers.add_organisation(engine, "acme")["id"]
    limits = {
        period: customers.set_limit(engine, "organisation", org, "rows", 5, period)
        for period in ("second", "month", "ever")
    }
    now_s = now_ms() // 1000
    counters = [
        (limits["second"].id, now_s - 8000), (limits["second"].id, now_s),
        (limits["month"].id, limits["month"].window_s(now_s - 40 * 86_400)),
        (limits["month"].id, limits["month"].window_s(now_s)), (limits["ever"].id, 0),
        (999, now_s - 40 * 86_400), (999, now_s), (999, 0),
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(
            insert(schema.answers),
            [answer("old", 25), answer("new", 23), answer("busy", 25, None)],
        )
        connection.execute(
            insert(schema.counters),
            [{"limit_id": n, "window_s": window, "used": 1} for n, window in counters],
        )
        connection.execute(
            insert(schema.holds),
            [{"worker": "w", "limit_id": n, "window_s": 0, "amount": n} for n in (0, 1)],
        )
    done = journal.compact(engine, tmp_path)
    assert (done.answers, done.counters, done.holds) == (1, 3, 1)
    kept = {row["idempotency_key"] for row in rows_of(engine, schema.answers)}
    assert kept == {"new", "busy"}
    left = {(row["limit_id"], row["window_s"]) for row in rows_of(engine, schema.counters)}
    assert left == set(counters) - {counters[0], counters[2], counters[5]}
    assert [row["amount"] for row in rows_of(engine, schema.holds)] == [1]


class Writing:
    """A ledger that another thread writes into, with a limit, idempotency keys and records."""

    def __init__(self, engine: Engine):
        self._engine = engine
        org = customers.add_organisation(engine, "acme")["id"]
        project = customers.add_project(engine, org, "one")["id"]
        customers.add_key(engine, "program", project=project)
        self._limit = customers.set_limit(engine, "organisation", org, "rows", 2**40)
        self._ends = threading.Event()
        self.begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    async def _run(self) -> None:
        ledger = Ledger(self._engine)
        number = 0
        while not self._ends.is_set():
            some = [self._one(ledger, f"{number}-{n}", n + 1) for n in range(20)]
            await asyncio.gather(*some)
            number += 1
            if number == 3:
                self.begun.set()
        ledger.close()

    async def _one(self, ledger: Ledger, key: str, rows: int) -> None:
        claim = Claim((Demand(self._limit, 0, rows, None),), Repeat("p", key, b"1" * 32))
        held = await ledger.reserve(claim)
        own = record(Usage(rows=rows), at_ms=NOON_MS)
        await ledger.settle(Entry(own, held, Kept(200, "{}", b"\x00\xff")))

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()


@pytest.fixture
def writing(engine: Engine) -> Iterator[Writing]:
    made = Writing(engine)
    assert made.begun.wait(30)
    yield made
    made.stop()


@pytest.fixture
def other(other_url: str) -> Iterator[Engine]:
    made = opened(other_url)
    yield made
    made.dispose()


KEPT = [name for name in schema.TABLES.tables if name not in backup.LEFT_OUT]


def test_a_backup_of_a_ledger_that_is_written_into_is_of_one_moment(
    engine: Engine, writing: Writing, other: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    manifest = backup.back_up(engine, file)
    writing.stop()
    restored = backup.restore(other, file)
    assert restored == manifest
    copied = rows_of(other, schema.records)
    assert 60 <= len(copied) <= len(rows_of(engine, schema.records))
    assert usage.differences(other) == []
    [counter] = rows_of(other, schema.counters)
    assert counter["used"] == sum(row["rows"] for row in copied)
    answers = rows_of(other, schema.answers)
    assert len(answers) == len(copied)
    assert {each["body"] for each in answers} == {b"\x00\xff"}
    for name in KEPT:
        table = schema.TABLES.tables[name]
        if name not in ("counters", "rollups"):  # whose rows have changed since
            own = rows_of(engine, table)
            assert all(row in own for row in rows_of(other, table)), name


def test_roll_ups_are_checked_and_rebuilt_while_the_ledger_is_written_into(
    engine: Engine, writing: Writing, tmp_path: Path
) -> None:
    for _ in range(10):
        assert usage.differences(engine) == []
        usage.rebuild(engine)
    writing.stop()
    assert usage.differences(engine) == []


def test_a_backup_restores_every_table_and_numbers_go_on(
    engine: Engine, writing: Writing, other: Engine, tmp_path: Path
) -> None:
    writing.stop()
    with engine.begin() as connection:
        connection.execute(insert(schema.answers).values(answer("busy", 0, None)))
    backup.back_up(engine, tmp_path / "backup")
    backup.restore(other, tmp_path / "backup")
    for name in KEPT:
        own = rows_of(engine, schema.TABLES.tables[name])
        own = [row for row in own if row.get("idempotency_key") != "busy"]
        assert own == rows_of(other, schema.TABLES.tables[name]), name
    last = max(row["number"] for row in rows_of(engine, schema.records))
    settled(other, record(Usage(rows=1)))
    assert max(row["number"] for row in rows_of(other, schema.records)) == last + 1
    assert usage.differences(other) == []
    org = customers.listed(other, "organisation")[0]["id"]
    old = customers.limits_of(other, "organisation", org)
    assert customers.set_limit(other, "organisation", org, "tokens", 5).id > old[-1].id


def test_a_large_table_is_several_parts(
    engine: Engine, other: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PART_ROWS", 3)
    settled(engine, *(record(Usage(rows=n)) for n in range(7)))
    manifest = backup.back_up(engine, tmp_path / "backup")
    assert [part.rows for part in manifest.tables["records"]] == [3, 3, 1]
    backup.restore(other, tmp_path / "backup")
    assert rows_of(other, schema.records) == rows_of(engine, schema.records)


def changed(source: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A backup with the content of its files changed, or left out."""
    target = source.with_name("changed")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return target


def of_manifest(change: Callable[[Any], object]) -> Callable[[str, bytes], bytes]:
    def changed_one(name: str, content: bytes) -> bytes:
        if name != backup.MANIFEST:
            return content
        manifest = json.loads(content)
        change(manifest)
        return json.dumps(manifest).encode()

    return changed_one


def more_rows(manifest: Any) -> None:
    manifest["tables"]["state"][0]["rows"] += 1


CHANGES: dict[str, Callable[[str, bytes], bytes | None]] = {
    "records/000000.parquet is not": lambda name, content: (
        content[:-20] + b"x" + content[-19:] if name.startswith("records") else content
    ),
    "rollups/000000.parquet is not": lambda name, content: (
        None if name.startswith("rollups") else content
    ),
    "no manifest.json that": lambda name, content: None if name == backup.MANIFEST else content,
    "is of revision 9999": of_manifest(lambda manifest: manifest.update(revision="9999")),
    "should have 2 rows of state": of_manifest(more_rows),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_backup_that_is_not_whole_leaves_the_database_empty(
    engine: Engine, other: Engine, tmp_path: Path, sentence: str
) -> None:
    customers.add_key(engine, "first")  # by which `state` has a row
    settled(engine, ONE)
    backup.back_up(engine, tmp_path / "backup")
    file = changed(tmp_path / "backup", CHANGES[sentence])
    with pytest.raises(BackupUnusable, match=sentence):
        backup.restore(other, file)
    assert not any(rows_of(other, schema.TABLES.tables[name]) for name in tables(other) & set(KEPT))


@pytest.mark.parametrize("size", [0, 100, -30])
def test_a_part_of_a_backup_is_refused(
    engine: Engine, other: Engine, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "backup"
    backup.back_up(engine, file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BackupUnusable, match="only a part"):
        backup.restore(other, file)


def test_a_backup_goes_into_an_empty_database_only(
    engine: Engine, other: Engine, tmp_path: Path
) -> None:
    backup.back_up(engine, tmp_path / "backup")
    customers.add_organisation(ready(other), "there")
    with pytest.raises(SettingInvalid, match="rows in the table organisations"):
        backup.restore(other, tmp_path / "backup")
    assert [row["name"] for row in customers.listed(other, "organisation")] == ["there"]


def test_the_command_backs_up_restores_and_checks(
    engine: Engine, url: str, other_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settled(engine, *of_days(40, 0))
    file = str(tmp_path / "backup")
    assert main(["ledger", "backup", file, "--database", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["records"] == 2
    assert oct(Path(file).stat().st_mode)[-3:] == "600"
    assert main(["ledger", "backup", file, "--database", url]) == 2  # it is there
    assert main(["ledger", "restore", file, "--database", other_url]) == 0
    assert "were restored from" in capsys.readouterr().out
    words = ["--folder", str(tmp_path / "old"), "--database", other_url]
    assert main(["ledger", "compact", *words]) == 0
    assert "1 records went into 1 new files" in capsys.readouterr().out
    assert main(["ledger", "check", "--database", other_url]) == 2
    assert "give the folder" in capsys.readouterr().err
    assert main(["ledger", "check", *words]) == 0
    assert capsys.readouterr().out == "The roll-ups are what the records come to.\n"


def test_the_command_tells_each_difference_and_mends_them(
    engine: Engine, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settled(engine, ONE)
    with engine.begin() as connection:
        connection.execute(schema.rollups.update().values(rows=4))
    words = ["--database", url]
    assert main(["ledger", "check", *words]) == 1
    told = capsys.readouterr().out
    assert told == "2026-11-03 12:00  org_1  p  k  tiny  3: rows 3, rolled up as 4\n"
    assert main(["ledger", "check", "--json", *words]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["event"] for each in found] == ["difference", "checked"]
    assert main(["ledger", "rebuild", *words]) == 0
    assert main(["ledger", "check", *words]) == 0


def test_the_command_makes_the_tables_and_knows_their_revisions(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for action in (["check"], ["backup", str(tmp_path / "b")], ["compact", "--folder", "x"]):
        assert main(["ledger", *action, "--database", url]) == 2
        assert "There is no ledger" in capsys.readouterr().err
    for revision in ("base", "9999"):
        assert main(["ledger", "migrate", "--to", revision, "--database", url]) == 2
        assert "There is no revision" in capsys.readouterr().err
    assert main(["ledger", "migrate", "--database", url]) == 0
    assert main(["ledger", "check", "--database", url]) == 0
    assert main(["ledger", "compact", "--folder", "x", "--keep-days", "-1", "--database", url]) == 2


def test_a_number_of_a_table_without_rows_begins_at_one(
    engine: Engine, other: Engine, tmp_path: Path
) -> None:
    backup.back_up(engine, tmp_path / "backup")
    backup.restore(other, tmp_path / "backup")
    settled(other, ONE)
    with reading(other) as connection:
        assert connection.execute(select(func.max(schema.records.c.number))).scalar() == 1


def test_tables_of_another_revision_are_backed_up_as_they_are(
    engine: Engine, tmp_path: Path
) -> None:
    settled(engine, ONE)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE records DROP COLUMN queue_us")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    manifest = backup.back_up(engine, tmp_path / "backup")
    assert manifest.revision == "0000"
    with zipfile.ZipFile(tmp_path / "backup") as archive:
        content = archive.read(manifest.tables["records"][0].name)
    columns = pq.read_table(io.BytesIO(content)).column_names
    assert "latency_us" in columns
    assert "queue_us" not in columns
