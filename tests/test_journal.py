"""The journal: older days move into files, and nothing is lost; on both databases."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, insert
from tests.ledgers import DAY_MS, rows_of, settled
from tests.test_exports import events
from tests.test_ledger import record

from modelyard.core.errors import RowsUnreadable, SettingInvalid
from modelyard.ledger import customers, journal, schema, usage
from modelyard.ledger.database import now_ms, opened
from modelyard.ledger.entries import Record
from modelyard.ledger.limits import Usage
from modelyard.ledger.revisions import ready


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
