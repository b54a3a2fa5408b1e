"""What a client is given, when it asks again, and that API and documentation say the same."""

import ast
import contextlib
import io
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.between import Between
from tests.clients import ROWS, Asked, Customer, many_rows
from tests.test_readme import blocks

from modelyard.client import (
    ApiError,
    AsyncClient,
    Busy,
    Client,
    RequestInvalid,
    calls,
)
from modelyard.client.calls import Operation
from modelyard.client.exchange import BASE_S, CAP_S, Patience, exchanged
from modelyard.client.messages import Request, Response
from modelyard.client.refusals import PROBLEM, no_answer, seconds
from modelyard.client.replies import rate_limits
from modelyard.core.errors import ExtraMissing, SettingInvalid
from modelyard.ledger import customers

pytestmark = pytest.mark.usefixtures("no_proxy")
PAGE = Path(__file__).parent.parent / "docs" / "client.md"
OPERATIONS = [each for each in vars(calls).values() if isinstance(each, Operation)]


# What is given


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:99999999", "http://u:secret@a",
     "http://a?b=c", "http://a#b", "http://a\n", f"http://{'a' * 70}", "http://a..b",
     "http://xn--zzzzz--", "http://a:65536", "/v1", 7],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_that_is_none_is_refused(kind: Any, url: Any) -> None:
    with pytest.raises(SettingInvalid, match="The URL of the service") as caught:
        kind(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"key": ""}, {"key": "a b"}, {"key": "ключ"}, {"timeout_s": 0}, {"retries": -1},
     {"total_s": float("nan")}],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_settings_that_make_no_sense_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(SettingInvalid) as caught:
        kind("http://127.0.0.1", **options)
    assert "ключ" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
def test_an_idempotency_key_that_cannot_be_sent_is_refused(
    asked: Asked, failing: Between, key: str
) -> None:
    with pytest.raises(SettingInvalid, match="An idempotency key has 1 to 255"):
        asked(failing.url, "predict", "tiny", ROWS, idempotency_key=key)
    assert failing.seen == []


def endless() -> list[Any]:
    made: list[Any] = []
    made.append({"text": made})
    return made


@pytest.mark.parametrize(
    "rows", [[{"text": object()}], [{"text": float("nan")}], [{"text": "\ud800"}], endless(),
             [{("a", "b"): 1}]],
)  # fmt: skip
def test_rows_that_json_has_not_are_refused(
    asked: Asked, failing: Between, rows: list[Any]
) -> None:
    with pytest.raises(RequestInvalid, match="cannot be sent as JSON") as caught:
        asked(failing.url, "predict", "tiny", rows)
    assert (caught.value.status, failing.seen) == (None, [])


def test_a_number_of_rows_below_one_is_refused(asked: Asked, free: str) -> None:
    with pytest.raises(SettingInvalid, match="batch_rows is a whole number from 1; got 0"):
        asked(free, "predict_many", "tiny", ROWS, batch_rows=0)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_without_httpx_it_is_said_how_to_install_it(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'modelyard\[client\]'"):
        kind("http://127.0.0.1")


def test_an_error_survives_being_handed_to_another_process() -> None:
    import pickle  # as worker processes hand errors on; what is read here was written here

    error = pickle.loads(pickle.dumps(Busy("Later.", 503, "service-busy", "page", "req_1", 2.0)))
    assert (str(error), error.status, error.code, error.page) == (
        "Later.", 503, "service-busy", "page",
    )  # fmt: skip
    assert (error.request_id, error.retry_after_s) == ("req_1", 2.0)


# When to send again


@dataclass(frozen=True)
class Happens:
    """What comes of an attempt, and what share of its time it takes; None is no response."""

    status: int | None
    retry_after: int | None
    share: float


HAPPENINGS = st.builds(
    Happens,
    st.sampled_from([None, 200, 409, 422, 429, 500, 502, 503, 504]),
    st.none() | st.integers(0, 400),
    st.floats(0, 1),
)
PASSES = (500, 502, 503, 504, None)


@given(
    st.lists(HAPPENINGS, min_size=1, max_size=40),
    st.integers(0, 60),
    st.floats(0.1, 100),
    st.floats(0.1, 2000),
    st.floats(0, 1),
)
@example([Happens(503, None, 0.0)] * 40, 60, 1.0, 2000.0, 1.0)
def test_attempts_are_bounded_and_never_too_soon(
    happens: list[Happens], retries: int, timeout_s: float, total_s: float, drawn: float
) -> None:
    now_s = 1000.0
    patience = Patience(timeout_s, retries, total_s, clock=lambda: now_s, draw=lambda: drawn)
    request = Request("POST", "http://127.0.0.1/")
    call = exchanged(request, patience)
    made = 0
    try:
        attempt = next(call)
        assert attempt.wait_s == 0
        while True:
            each = happens[min(made, len(happens) - 1)]
            made += 1
            assert 0 < attempt.timeout_s <= timeout_s
            assert attempt.request is request
            now_s += attempt.wait_s + each.share * attempt.timeout_s
            headers = {} if each.retry_after is None else {"retry-after": str(each.retry_after)}
            attempt = call.send(
                no_answer(request, OSError())
                if each.status is None
                else Response(each.status, headers, b"")
            )
            after_s = 0 if each.status is None else (each.retry_after or 0)
            assert after_s <= attempt.wait_s <= after_s + min(CAP_S, BASE_S * 2.0 ** (made - 1))
            assert each.status in PASSES or (
                each.status in (409, 429) and each.retry_after is not None
            )
    except StopIteration as ended:
        assert ended.value.status == 200
    except ApiError as error:
        assert error.status == each.status
        is_passing = each.status in PASSES or error.retry_after_s is not None
        is_final = each.status == 422 or not is_passing
        longest_s = (error.retry_after_s or 0) + CAP_S
        assert is_final or made == retries + 1 or now_s + longest_s >= 1000 + total_s
    assert made <= retries + 1
    assert now_s <= 1000 + total_s + 1e-6


def test_waits_are_drawn_from_nothing_to_all_of_the_time() -> None:
    drawn = [Patience(1, 1, 1).wait_s(5, None) for _ in range(200)]
    assert min(drawn) < 2 and max(drawn) > 6 and max(drawn) <= 8


@given(st.text() | st.from_regex(r"[ 0-9]{1,5000}"))
@example("9" * 5000)
@example("-1")
@example("0\x1c")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Thu, 01 Jan 1970 00:00:00 GMT")
def test_any_retry_after_is_read_or_left(text: str) -> None:
    found = seconds(text, datetime.now(UTC))
    assert found is None or found >= 0


@given(st.text(), st.text())
def test_any_rate_limits_are_read_or_left(lefts: str, policies: str) -> None:
    assert all(
        each.left >= 0
        for each in rate_limits({"ratelimit": f'"a";r=1{lefts}', "ratelimit-policy": policies})
    )


# What the service says of itself


def resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A schema in place of the reference to it."""
    while name := schema.get("$ref"):
        schema = whole
        for part in name.removeprefix("#/").split("/"):
            schema = schema[part]
    return schema


def assert_within(
    read: dict[str, Any], said: dict[str, Any], reads: dict[str, Any], says: dict[str, Any]
) -> None:
    """What the client reads is all in what the service says, of the same types."""
    read, said = resolved(read, reads), resolved(said, says)
    assert read["type"] == said["type"]
    if read["type"] == "array":
        assert_within(read["items"], said["items"], reads, says)
    for name, each in read.get("properties", {}).items():
        assert name in said["properties"], name
        assert_within(each, said["properties"][name], reads, says)
    assert set(read.get("required", ())) <= set(said.get("required", ()))


def test_the_client_and_the_openapi_document_say_the_same(asked: Asked, failing: Between) -> None:
    """All that the client sends and reads is in the document of the app that answers it."""
    import httpx

    document = httpx.get(f"{failing.service}/openapi.json", trust_env=False).json()
    asked(failing.url, "models")
    asked(failing.url, "model", "tiny")
    asked(failing.url, "predict", "tiny", ROWS)
    asked(failing.url, "predict_many", "tiny", many_rows(5), batch_rows=3)
    sent = {(each.method, each.path.replace("/tiny", "/{name}")) for each in failing.seen}
    assert sent == {(each.method, each.path) for each in OPERATIONS}
    for each in OPERATIONS:
        said = document["paths"][each.path][each.method.lower()]
        answer = said["responses"]["200"]["content"]["application/json"]["schema"]
        reads = each.reply.json_schema()
        assert_within(reads, answer, reads, document)
        for status, response in said["responses"].items():
            for kind, content in response["content"].items():
                if kind == "application/problem+json":
                    problem = PROBLEM.json_schema()
                    assert_within(problem, content["schema"], problem, document)
                    assert int(status) >= 400
    bodies = [each for each in failing.seen if each.method == "POST"]
    assert len(bodies) == 3
    for each in bodies:
        said = document["paths"][each.path.replace("/tiny", "/{name}")]["post"]["requestBody"]
        schema = said["content"][each.headers["content-type"]]["schema"]
        validator = jsonschema.Draft202012Validator(schema | {"components": document["components"]})
        validator.validate(json.loads(each.body))


# The documentation


SAYS = [
    lambda out: out.count("\n") == 3 and " req_" in out and "RateLimit(name='project-rows-" in out,
    lambda out: set(out.split()) <= {"good", "bad"} and len(out.split()) == 500,
    lambda out: out.startswith("('bad', 'good')\n") and len(out.split("\n")) == 502,
    lambda out: out == "True True\n",
    lambda out: out.startswith("422 request-invalid Row 1, column 'text'"),
]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_pages_examples_do_what_they_say(customer: Customer) -> None:
    customers.set_limit(customer.engine, "project", customer.project, "rows", 9000, "month")
    found = blocks(PAGE, "python")
    assert len(found) == len(SAYS)
    for block, says in zip(found, SAYS, strict=True):
        program = block.replace("http://127.0.0.1:8000", customer.url)
        program = program.replace("my_...", customer.key).replace("reviews", "tiny")
        assert program.count(customer.key) == 1
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(ast.parse(program), "client.md", "exec"), {"__name__": "__main__"})
        assert says(said.getvalue()), said.getvalue()


def test_the_page_names_every_method_and_class() -> None:
    import modelyard.client

    text = PAGE.read_text("utf-8")
    errors = [
        name
        for name in modelyard.client.__all__
        if issubclass(getattr(modelyard.client, name), ApiError)
    ]
    methods = [name for name in vars(Client) if not name.startswith("_")]
    assert all(f"`{name}`" in text for name in errors)
    assert all(f"`{name}(" in text for name in methods)
