"""Rows and answers that are kept: of which requests, without what is personal, and how long."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from modelyard.ledger.redaction import redacted
from modelyard.ledger.revisions import move
from modelyard.service.metering import Meter

PREDICT = "/v1/models/tiny/predict"
TEXT = "a good film, says ann@example.com"
PERSONAL = {
    "Mail Ann.O'Neil+shop@mail.example.co.uk now": "Mail [e-mail] now",
    "请联系 13912345678 或 zhang@example.cn": "请联系 [telephone] 或 [e-mail]",
    "身份证11010519491231002X。": "身份证[identity number]。",
    "110105194912310021 is none": "110105194912310021 is none",
    "card 4111-1111-1111-1111.": "card [card].",
    "order 4111-1111-1111-1112.": "order 4111-1111-1111-1112.",
    "DE89 3704 0044 0532 0130 00": "[account]",
    "from 192.168.1.77, and ::1 or 2001:db8::8a2e:370:7334": (
        "from [address], and [address] or [address]"
    ),
    "version 1.2.3 at 12:30:45": "version 1.2.3 at 12:30:45",
    "999.1.1.1": "999.1.1.1",
    "+49 (0)30 901820 and (030) 90 18 20": "[telephone] and [telephone]",
    "(415) 555-0132, 415-555-0132": "[telephone], [telephone]",
    "postgresql://bob:hunter2@db/shop": "postgresql://[secret]@db/shop",
    "key my_00112233aabb_0011223344556677": "key [secret]",
    "in 2024 there were 12,345,678 of 1/2": "in 2024 there were 12,345,678 of 1/2",
}  # fmt: skip


@pytest.mark.parametrize(("text", "left"), PERSONAL.items())
def test_what_is_personal_by_its_form_is_replaced(text: str, left: str) -> None:
    assert redacted({"text": [text]}) == {"text": [left]}


@settings(max_examples=200)
@given(st.text(max_size=50), st.text(max_size=50))
def test_an_address_is_found_wherever_it_stands(before: str, after: str) -> None:
    told = redacted(f"{before} ann@example.com {after}")
    assert "ann@example.com" not in told
    assert redacted(told) == told


@pytest.mark.parametrize(
    "unit", ["a", "1", "a.", "1 ", "-a", ":a", "my_", "://a:", "@a", "+1 ", "0 "]
)
def test_no_text_takes_long(unit: str) -> None:
    text = unit * (MOST_CHARACTERS // len(unit))
    began = time.process_time()
    redacted(text)
    assert time.process_time() - began < 2


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
    image = content_of(kept, [{"image": b"\x89PNG"}], None)
    assert json.loads(image.inputs)[0]["image"]["bytes"] == 4


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
    text = "a good film, says [e-mail]" if is_redacted else TEXT
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
