"""Rows and answers that are kept: of which requests, without what is personal, and how long."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, update
from tests.service_host import COLUMN, info_of, open_runtime, served, signed, write_release
from tests.test_ledger import record

from modelyard.cli.main import main
from modelyard.core.errors import LedgerAway
from modelyard.core.project import Serve
from modelyard.ledger import contents, customers, schema
from modelyard.ledger.contents import MOST_CHARACTERS, Content, content_of, is_kept
from modelyard.ledger.database import now_ms, writing
from modelyard.ledger.directory import Directory
from modelyard.ledger.entries import Entry
from modelyard.ledger.journal import compact
from modelyard.ledger.ledger import Ledger
from modelyard.ledger.limits import Usage
from modelyard.ledger.revisions import move
from modelyard.service.metering import Meter

PREDICT = "/v1/models/tiny/predict"
TEXT = "a good film, says ann@example.com"


def test_a_share_of_requests_is_kept_by_their_ids() -> None:
    ids = [f"req_{number * 2**64 // 1000:016x}" for number in range(1000)]
    assert sum(is_kept(each, 0.25) for each in ids) == 250
    assert all(is_kept(each, 1) for each in ids)
    assert not any(is_kept(each, 0) for each in ids)


def test_what_is_too_long_is_cut_and_says_so() -> None:
    kept = Serve(keep=1)
    short = content_of(kept, [{"text": "x" * 60_000}], [{"label": "good"}])
    assert not short.is_cut and json.loads(short.inputs) == [{"text": "x" * 60_000}]
    many = content_of(kept, [{"text": "x" * 60_000}] * 1000, None)
    assert many.is_cut and len(many.inputs) == MOST_CHARACTERS and many.answers is None
    for picture in (b"\x89PNG", "iVBORw=="):
        told = content_of(kept, [{"image": picture, "text": "x"}], None, {"image"})
        [row] = json.loads(told.inputs)
        assert (row["text"], row["image"]["bytes"]) == ("x", 4)
    edge = "x" * (MOST_CHARACTERS - 5) + " ann@example.com"
    assert "ann" not in content_of(kept, [{"text": edge}], None).inputs


@pytest.fixture
def meter(engine: Engine) -> Iterator[Meter]:
    directory, ledger = Directory(engine), Ledger(engine)
    yield Meter(directory, ledger)
    directory.close()
    ledger.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed(write_release(tmp_path_factory.mktemp("contents") / "release"))


def asked(release: Path, meter: Meter, limits: Serve) -> list[httpx.Response]:
    """A good request twice under one idempotency key, and a bad one."""
    customers.add_organisation(meter.engine, "acme")
    customers.add_project(meter.engine, "acme", "web")
    _, key = customers.add_key(meter.engine, "shop", project="web")
    headers = {"Authorization": f"Bearer {key.text}", "Idempotency-Key": "one"}
    runtime = open_runtime(release)
    bodies: list[Any] = [{"rows": [{COLUMN: TEXT}]}, {"rows": [{COLUMN: TEXT}]}, {"rows": 1}]
    with (
        served(runtime, info_of(runtime, release), limits, meter) as url,
        httpx.Client(headers=headers, trust_env=False) as client,
    ):
        replies = [client.post(f"{url}{PREDICT}", json=each) for each in bodies]
    assert [each.status_code for each in replies] == [200, 200, 422]
    return replies


@pytest.mark.parametrize("is_redacted", [True, False])
def test_a_request_is_kept_once_as_the_project_says(
    release: Path,
    meter: Meter,
    url: str,
    is_redacted: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, *_ = asked(release, meter, Serve(keep=1, keep_redacted=is_redacted))
    assert main(["ledger", "contents", "--release", "tiny", "--database", url]) == 0
    [told] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    text = "a good film, says [email]" if is_redacted else TEXT
    assert told["inputs"] == [{COLUMN: text}]
    assert told["answers"] == first.json()["predictions"]
    assert told["id"] == first.headers["x-request-id"]
    assert (told["release"], told["is_cut"]) == ("tiny", False)
    assert main(["ledger", "contents", "--release", "other", "--database", url]) == 0
    assert main(["ledger", "contents", "--days", "0", "--database", url]) == 0
    assert not capsys.readouterr().out


def test_nothing_is_kept_where_nothing_is_said(release: Path, meter: Meter) -> None:
    asked(release, meter, Serve())
    assert not list(contents.read(meter.engine))


def content(text: str = "x", days: float = 1) -> Content:
    return content_of(Serve(keep=1, keep_days=days), [{"text": text}], [{"label": "good"}])


def test_what_is_kept_goes_with_its_record_or_not_at_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(engine)

    async def settle() -> None:
        await ledger.settle(Entry(record(Usage(rows=1), id="req_1"), content=content()))
        with pytest.raises(LedgerAway):
            await ledger.settle(Entry(record(Usage(rows=2**70)), content=content()))
        await ledger.settle(Entry(record(Usage(rows=1)), content=None))

    asyncio.run(settle())
    ledger.close()
    assert [each["id"] for each in contents.read(engine)] == ["req_1"]


@pytest.mark.parametrize("by", ["worker", "compact"])
def test_what_is_kept_is_deleted_after_its_days(engine: Engine, tmp_path: Path, by: str) -> None:
    ledger = Ledger(engine)

    async def settle() -> None:
        for days in (1, 3):
            await ledger.settle(Entry(record(Usage(rows=1)), content=content(days=days)))

    asyncio.run(settle())
    ledger.close()
    own = schema.contents
    with writing(engine) as connection:
        connection.execute(update(own).values(until_ms=own.c.until_ms - 2 * contents.DAY_MS))
    assert len(list(contents.read(engine))) == 1  # and none is read meanwhile
    if by == "compact":
        assert compact(engine, tmp_path / "days").contents == 1
    else:
        other = Ledger(engine)
        ends = time.monotonic() + 20
        while rows_of(engine) > 1:
            assert time.monotonic() < ends
        other.close()
    assert rows_of(engine) == 1


def rows_of(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.execute(schema.contents.select()).all())


def test_revisions_go_back_and_forward_with_what_others_have(engine: Engine) -> None:
    organisation = customers.add_organisation(engine, "acme")
    move(engine, "0002")
    move(engine)
    assert customers.find(engine, "organisation", "acme") == organisation
    assert rows_of(engine) == 0
    assert now_ms() > organisation["created_ms"] - 1
