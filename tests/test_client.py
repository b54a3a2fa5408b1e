"""The client over HTTP: against the real service, and with failures between the two."""

import asyncio
import contextlib
import inspect
import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from tests.between import CUT, DROP, FORWARD, Between, Told, between
from tests.clients import LIMITS, ROWS, Asked, Customer, counted, many_rows
from tests.service_host import (
    info_of,
    open_runtime,
    served,
    slowed,
    write_image_release,
)

from modelyard.client import (
    ApiError,
    AsyncClient,
    Busy,
    Client,
    KeyRefused,
    LimitReached,
    NoAnswer,
    NotAllowed,
    RequestInvalid,
)
from modelyard.client.calls import body_of
from modelyard.client.exchange import BASE_S
from modelyard.ledger import customers
from modelyard.runtime.runtime import Runtime

pytestmark = pytest.mark.usefixtures("no_proxy")


def labels(answers: Any) -> list[str]:
    return [answer["label"] for answer in answers]


# What is answered


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: [p for p in inspect.signature(each).parameters if p != "at_once"]
            for name, each in vars(kind).items()
            if inspect.isfunction(each) and (name == "__init__" or not name.startswith("_"))
        }

    assert methods(Client) == methods(AsyncClient)
    assert {"models", "model", "predict", "predict_many", "close"} < methods(Client).keys()


def test_models_say_what_is_served(asked: Asked, free: str) -> None:
    (listed,) = asked(free, "models")
    assert listed == asked(free, "model", "tiny")
    assert (listed.name, listed.version, listed.target) == ("tiny", "3", "class")
    assert listed.labels == ("bad", "good")
    assert [(each.name, each.kind) for each in listed.inputs] == [("text", "text")]
    assert listed.limits["max_rows"] == 64


def test_a_prediction_says_all_there_is(
    asked: Asked, customer: Customer, tiny_runtime: Runtime
) -> None:
    limit = customers.set_limit(customer.engine, "project", customer.project, "rows", 9, "month")
    customers.set_limit(
        customer.engine, "project", customer.project, "rows", 3, "month", is_hard=False
    )
    found = asked(customer.url, "predict", "tiny", iter(ROWS), key=customer.key)
    assert labels(found.predictions) == labels(tiny_runtime.predict(ROWS))
    tokens = int(tiny_runtime.encode(ROWS).lengths.sum())
    assert (found.model, found.version) == ("tiny", "3")
    assert (found.usage.rows, found.usage.tokens) == (3, tokens)
    assert customer.journal() == {found.request_id: 200}
    assert not found.replayed
    (left,) = found.rate_limits
    assert (left.name, left.left, left.amount) == (limit.name, 6, 9)
    assert 0 < left.resets_in_s <= 31 * 86_400
    assert "0 of 3 left" in found.warning


def test_a_service_without_a_ledger_counts_nothing(asked: Asked, free: str) -> None:
    found = asked(free, "predict", "tiny", ROWS)
    assert (found.request_id, found.rate_limits, found.warning) == (None, (), None)


def test_the_bytes_of_an_image_are_sent_as_they_are(asked: Asked, tmp_path: Path) -> None:
    import base64

    folder = write_image_release(tmp_path)
    runtime = open_runtime(folder)
    info = info_of(runtime, folder)
    text = info.columns[0].example
    with served(runtime, info, LIMITS) as url:
        rows = [{"photo": base64.b64decode(text)}, {"photo": text}]
        first, second = asked(url, "predict", "tiny", rows).predictions
    assert first["scores"] == second["scores"]


# Sent again


def test_what_fails_is_sent_again_with_the_same_key_and_counted_once(
    asked: Asked, customer: Customer
) -> None:
    with between(customer.url) as failing:
        failing.faults = [Told(502, b"<h1>Bad"), DROP, Told(500), CUT, Told(504), Told(503), DROP]
        found = asked(failing.url, "predict", "tiny", ROWS, key=customer.key, retries=7)
    assert found.replayed  # the service had answered what was cut
    assert len(found.predictions) == 3
    assert len(failing.seen) == 8
    assert len(set(failing.keys)) == 1 and len(str(failing.keys[0])) == 36
    assert len({each.body for each in failing.seen}) == 1
    assert customer.used() == (1, 3)
    assert len(asked.waits) == 7
    assert all(wait <= BASE_S * 2**n for n, wait in enumerate(asked.waits))
    assert len(set(asked.waits)) == 7


def test_each_call_has_a_key_of_its_own(asked: Asked, failing: Between) -> None:
    asked(failing.url, "predict_many", "tiny", ROWS, batch_rows=1)
    assert len(set(failing.keys)) == 3


def test_an_own_key_is_counted_once_over_several_calls(asked: Asked, customer: Customer) -> None:
    again = {"key": customer.key, "idempotency_key": "order-1"}
    first = asked(customer.url, "predict", "tiny", ROWS, **again)
    second = asked(customer.url, "predict", "tiny", ROWS, **again)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.predictions == second.predictions
    assert customer.used() == (1, 3)
    with pytest.raises(RequestInvalid, match="stands for another request") as caught:
        asked(customer.url, "predict", "tiny", ROWS[:1], **again)
    assert (caught.value.status, caught.value.code) == (409, "request-repeated")
    assert asked.waits == []


def test_a_request_that_is_being_answered_is_waited_for(
    asked: Asked, engine: Engine, url: str, tiny: Path
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def held(encoded: object) -> None:
        began.set()
        assert go_on.wait(20)

    runtime = slowed(open_runtime(tiny), held)
    with counted(engine, url, runtime, tiny) as customer:
        more = {"key": customer.key, "idempotency_key": "twice"}
        first: list[Any] = []
        other = threading.Thread(
            target=lambda: first.append(
                Asked("sync")(customer.url, "predict", "tiny", ROWS, **more)
            )
        )
        other.start()
        assert began.wait(20)

        def sleep(wait_s: float) -> None:
            go_on.set()
            other.join()

        asked.sleep = sleep
        second = asked(customer.url, "predict", "tiny", ROWS, **more)
        assert second.replayed and second.predictions == first[0].predictions
        assert len(asked.waits) == 1 and asked.waits[0] >= 1
        assert customer.used() == (1, 3)


def test_a_request_that_stays_unanswered_is_busy(asked: Asked, failing: Between) -> None:
    body = json.dumps({"detail": "It is being answered.", "code": "request-repeated"}).encode()
    failing.faults = [Told(409, body, {"retry-after": "1"})] * 3
    with pytest.raises(Busy, match=r"It is being answered\.") as caught:
        asked(failing.url, "predict", "tiny", ROWS, retries=2)
    assert len(asked.waits) == 2 and caught.value.retry_after_s == 1


@pytest.mark.parametrize("status", [429, 503, 409])
def test_retry_after_is_waited_for(asked: Asked, failing: Between, status: int) -> None:
    failing.faults = [Told(status, b"", {"Retry-After": "7"})] * 2
    assert len(asked(failing.url, "predict", "tiny", ROWS).predictions) == 3
    first, second = asked.waits
    assert 7 <= first <= 7 + BASE_S
    assert 7 <= second <= 7 + 2 * BASE_S


def test_a_rate_is_waited_for_as_long_as_there_is_time(asked: Asked, customer: Customer) -> None:
    customers.set_limit(customer.engine, "project", customer.project, "rows", 4, "month")
    assert asked(customer.url, "predict", "tiny", ROWS, key=customer.key)
    with pytest.raises(LimitReached, match=r"limit of 4 rows for each month") as caught:
        asked(customer.url, "predict", "tiny", ROWS, key=customer.key, retries=2, total_s=1e9)
    told_s = caught.value.retry_after_s
    assert told_s is not None and len(asked.waits) == 2
    assert all(told_s <= wait_s <= told_s + 60 for wait_s in asked.waits)
    asked.waits.clear()
    with pytest.raises(LimitReached):
        asked(customer.url, "predict", "tiny", ROWS, key=customer.key, total_s=1)
    assert asked.waits == []
    assert customer.used() == (1, 3)


def test_a_budget_that_is_used_up_is_told_at_once(asked: Asked, customer: Customer) -> None:
    customers.set_limit(customer.engine, "project", customer.project, "rows", 2, "ever")
    with between(customer.url) as failing, pytest.raises(LimitReached) as caught:
        asked(failing.url, "predict", "tiny", ROWS, key=customer.key)
    assert (caught.value.status, caught.value.retry_after_s) == (429, None)
    assert len(failing.seen) == 1 and asked.waits == []


# Refused


def refused(asked: Asked, url: str, method: str, *args: Any, **more: Any) -> ApiError:
    """The error of a request that is not sent again."""
    with between(url) as failing, pytest.raises(ApiError) as caught:
        asked(failing.url, method, *args, **more)
    assert len(failing.seen) == 1
    return caught.value


def test_refusals_have_their_class_and_the_services_words(
    asked: Asked, engine: Engine, url: str, tiny_runtime: Runtime, tiny: Path
) -> None:
    unknown = f"my_{'0' * 12}_{'0' * 48}"
    cases: list[tuple[type[ApiError], int, str, tuple[Any, ...]]] = [
        (KeyRefused, 401, "key-refused", ("tiny", ROWS)),
        (RequestInvalid, 404, "unknown-name", ("other?", ROWS)),
        (RequestInvalid, 422, "request-invalid", ("tiny", [{"text": 7}])),
        (RequestInvalid, 422, "request-invalid", ("tiny", [])),
        (RequestInvalid, 413, "request-too-large", ("tiny", ROWS * 99)),
    ]
    said: dict[str | None, int] = {}
    with counted(engine, url, tiny_runtime, tiny) as customer:
        for kind, status, code, args in cases:
            key = unknown if kind is KeyRefused else customer.key
            error = refused(asked, customer.url, "predict", *args, key=key)
            assert (type(error), error.status, error.code) == (kind, status, code)
            assert error.page == f"docs/errors/{code}.md"
            assert str(error) == error.detail and error.detail.endswith(".")
            if kind is not KeyRefused:
                said[error.request_id] = status
        assert isinstance(refused(asked, customer.url, "models"), KeyRefused)
    assert len(said) == 4 and customer.journal() == said
    assert customer.used() == (0, 0)


def test_a_role_that_may_not_ask_is_not_allowed(asked: Asked, customer: Customer) -> None:
    customers.add_user(customer.engine, "acme", "anna", "viewer")
    _, made = customers.add_key(customer.engine, "anna", user="anna")
    assert asked(customer.url, "model", "tiny", key=made.text).name == "tiny"
    error = refused(asked, customer.url, "predict", "tiny", ROWS, key=made.text)
    assert type(error) is NotAllowed and "role viewer" in error.detail


PAGES = {
    "HTML": (Told(200, b"<html>Log in", {"content-type": "text/html"}), "answer-unreadable"),
    "no JSON": (Told(200, b'{"model": "tiny", "predic'), "answer-unreadable"),
    "no UTF-8": (Told(200, b'{"model": "\xff"}'), "answer-unreadable"),
    "another shape": (Told(200, b"[1, 2]"), "answer-unreadable"),
    "nothing": (Told(204), "answer-unreadable"),
    "elsewhere": (Told(307, b"", {"location": "https://127.0.0.1/"}), "temporary-redirect"),
    "HTML that refuses": (Told(413, b"<html>Too large"), "request-entity-too-large"),
    "JSON that refuses": (Told(418, b'{"error": "tea"}'), "i'm-a-teapot"),
    "other details": (Told(422, b'{"detail": [{"loc": []}]}'), "unprocessable-entity"),
    "an unknown status": (Told(599, b"null"), "unknown-status"),
    "a number": (Told(400, b"9" * 9999), "bad-request"),
}


@pytest.mark.parametrize("name", PAGES)
def test_what_is_not_the_services_is_told_in_a_sentence(
    asked: Asked, failing: Between, name: str
) -> None:
    told, code = PAGES[name]
    failing.faults = [told]
    with pytest.raises(ApiError) as caught:
        asked(failing.url, "predict", "tiny", ROWS)
    error = caught.value
    if sys.version_info < (3, 13) or told.status not in (413, 422):  # phrases of RFC 9110 since
        assert error.code == code
    assert (error.status, len(failing.seen)) == (told.status, 1)
    assert f"POST {failing.url}/v1/models/tiny/predict was answered with" in str(error)
    assert isinstance(error, RequestInvalid) is (400 <= told.status < 500)


def test_a_proxys_page_is_busy_in_the_end(asked: Asked, failing: Between) -> None:
    failing.faults = [Told(502, b"<html>Bad gateway", {"content-type": "text/html"})] * 3
    with pytest.raises(Busy, match=r"answered with 502 Bad Gateway and no reason \(text/html\)"):
        asked(failing.url, "predict", "tiny", ROWS, retries=2)
    assert len(set(failing.keys)) == 1 and len(failing.seen) == 3


@pytest.mark.parametrize("fault", [DROP, CUT, Told(200, b"no", {"content-encoding": "gzip"})])
def test_no_whole_answer_is_told_in_a_sentence(
    asked: Asked, failing: Between, fault: str | Told
) -> None:
    failing.faults = [fault] * 2
    with pytest.raises(NoAnswer, match=r"had no answer \(.+\); see that the service") as caught:
        asked(failing.url, "predict", "tiny", ROWS, retries=1)
    assert (caught.value.status, caught.value.code) == (None, "no-answer")
    assert len(asked.waits) == 1


def test_where_nobody_listens_there_is_no_answer(asked: Asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(NoAnswer, match="ConnectError"):
        asked(url, "models", retries=3)
    assert len(asked.waits) == 3


def trickling_head(handler: Any) -> None:
    """As `trickle`, without an end of its head."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-never-ends: ")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)


def trickle(handler: Any) -> None:
    """An answer of which a byte comes now and then, for as long as anybody reads."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.02)


@pytest.mark.parametrize("fault", [trickle, trickling_head])
def test_an_answer_that_trickles_in_ends_with_the_time_for_it(
    asked: Asked, failing: Between, fault: Callable[[Any], None]
) -> None:
    failing.faults = [fault]
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="Timeout"):
        asked(failing.url, "predict", "tiny", ROWS, timeout_s=0.2, retries=0)
    assert time.monotonic() - began < 5


def test_no_answer_at_all_ends_with_the_time_for_it(asked: Asked, failing: Between) -> None:
    gone = threading.Event()
    failing.faults = [lambda handler: gone.wait(20)]
    with pytest.raises(NoAnswer, match="Timeout"):
        asked(failing.url, "predict", "tiny", ROWS, timeout_s=0.1, retries=0)
    gone.set()


# Many rows


def test_many_rows_are_answered_in_their_order(
    asked: Asked, customer: Customer, tiny_runtime: Runtime
) -> None:
    with between(customer.url) as failing:
        failing.faults = [FORWARD, DROP, CUT, Told(503)]
        rows = many_rows(50)
        found = asked(
            failing.url, "predict_many", "tiny", iter(rows), key=customer.key, batch_rows=8
        )
    expected = [answer["score"] for answer in tiny_runtime.predict(rows)]
    assert [answer["score"] for answer in found] == pytest.approx(expected, abs=1e-5)
    assert customer.used() == (7, 50)
    assert len(failing.seen) == 10 and len(set(failing.keys)) == 7
    assert asked(customer.url, "predict_many", "tiny", [], key="x") == []


def test_rows_without_end_are_taken_as_they_are_needed(failing: Between) -> None:
    taken = itertools.count()
    with Client(failing.url) as client:
        answers = client.predict_many("tiny", (ROWS[next(taken) % 3] for _ in iter(int, 1)), 10)
        assert failing.seen == []
        assert len(list(itertools.islice(answers, 25))) == 25
    assert len(failing.seen) == 3 and next(taken) == 30


def test_so_many_requests_are_on_their_way_and_no_more(failing: Between) -> None:
    together, on_way = threading.Barrier(3), []
    counted: list[int] = []

    def before() -> None:
        on_way.append(1)
        counted.append(len(on_way))
        together.wait(20)
        on_way.pop()

    failing.before = before
    taken = itertools.count()

    async def run() -> None:
        async with AsyncClient(failing.url) as client:
            answers = client.predict_many(
                "tiny", (ROWS[next(taken) % 3] for _ in range(36)), batch_rows=4, at_once=3
            )
            assert await anext(answers)
            assert next(taken) <= 4 * 3 + 1
            assert len([answer async for answer in answers]) == 35

    asyncio.run(run())
    assert len(failing.seen) == 9
    assert max(counted) == 3


@pytest.mark.parametrize("ending", ["failure", "close", "cancellation"])
def test_an_early_end_lets_go_of_what_is_on_its_way(failing: Between, ending: str) -> None:
    go_on = threading.Event()

    def held(handler: object) -> None:
        go_on.wait(20)

    rows = [{"text": f"row {n}"} for n in range(100)]
    faults = [FORWARD, Told(400) if ending == "failure" else held, held, held]
    failing.by_body = {body_of([row]): f for row, f in zip(rows, faults, strict=False)}

    async def run() -> list[Any]:
        found = []
        async with asyncio.timeout(10), AsyncClient(failing.url, retries=0) as client:
            answers = client.predict_many("tiny", rows, batch_rows=1, at_once=3)
            async for answer in answers:
                found.append(answer)
                if ending == "close":
                    break
                if ending == "cancellation":
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(answers), 0.1)
            await answers.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        return found

    try:
        if ending == "failure":
            with pytest.raises(RequestInvalid):
                asyncio.run(run())
        else:
            assert len(asyncio.run(run())) == 1
    finally:
        go_on.set()
