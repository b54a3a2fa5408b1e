"""Exports: answered requests as events for billing elsewhere; on both databases."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert
from tests.ledgers import rows_of, settled
from tests.test_ledger import record

from modelyard.cli import usage as usage_command
from modelyard.cli.main import main
from modelyard.core.errors import LedgerAway
from modelyard.ledger import exports, schema, usage
from modelyard.ledger.limits import USED, Usage

NOON_MS = 1_793_707_200_123
"""Noon of 2026-11-03 (UTC), and a little."""


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


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has one write at a time
def test_a_record_whose_number_is_lower_but_comes_later_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = engine.connect()
    late.execute(insert(schema.records).values(record(Usage(rows=1)).to_row()))
    settled(engine, record(Usage(rows=1)))
    monkeypatch.setattr(exports.time, "sleep", lambda _: late.commit())
    assert [each["data"]["number"] for each in events(engine, "cloudevents")] == [1, 2]
    late.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has one write at a time
def test_who_never_stops_writing_is_not_waited_for_for_good(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
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
