"""Backups of one moment, restored into either database; checks, rebuilds and revisions."""

import asyncio
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, func, insert, select
from tests.ledgers import rows_of, settled
from tests.test_exports import NOON_MS, ONE
from tests.test_journal import answer, of_days
from tests.test_ledger import record

from modelyard.cli.main import main
from modelyard.core.errors import BackupUnusable, SettingInvalid
from modelyard.ledger import backup, customers, schema, usage
from modelyard.ledger.database import opened, reading, tables
from modelyard.ledger.entries import Claim, Demand, Entry, Kept, Repeat
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Usage
from modelyard.ledger.revisions import ready


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
