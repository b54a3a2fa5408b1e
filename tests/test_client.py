"""The Python client, sync and async, against the real app and a server that fails at will."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from tests.service_host import COLUMN, info_of, open_runtime, served, write_release

from modelyard import client as clients
from modelyard.client import (
    AsyncClient,
    Client,
    KeyRefused,
    LimitReached,
    Model,
    Prediction,
    RequestRefused,
    Unavailable,
    wait_s,
)
from modelyard.core.project import Serve
from modelyard.ledger import customers, usage
from modelyard.serving import metered

ROWS = [{COLUMN: text} for text in ("good", "bad", "a dull film", "the plot", "fine", "cold")]
Ask = Callable[..., Any]


def sync(url: str, waited: list[float], **options: Any) -> Ask:
    """Calls a method of the client, by name."""

    def ask(method: str, *words: Any, **more: Any) -> Any:
        with Client(url, **options) as client:
            client.sleep = waited.append
            found = getattr(client, method)(*words, **more)
            return list(found) if method == "predict_many" else found

    return ask


def within_asyncio(url: str, waited: list[float], **options: Any) -> Ask:
    """The same with the client of asyncio."""

    async def slept(seconds: float) -> None:
        waited.append(seconds)

    async def asked(method: str, *words: Any, **more: Any) -> Any:
        async with AsyncClient(url, **options) as client:
            client.sleep = slept
            found = getattr(client, method)(*words, **more)
            if method == "predict_many":
                return [each async for each in found]
            return await found

    return lambda *words, **more: asyncio.run(asked(*words, **more))


@pytest.fixture(params=[sync, within_asyncio])
def way(request: pytest.FixtureRequest) -> Callable[..., Ask]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def service(folder: Path, engine: Engine, url: str) -> Iterator[tuple[str, str]]:
    """A metered service, and a key of it."""
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    customers.set_limit(engine, "project", "web", "rows", 20)
    _, key = customers.add_key(engine, "shop", project="web")
    runtime = open_runtime(folder)
    info = info_of(runtime, folder)
    with metered(url) as meter, served(runtime, info, Serve(max_rows=8), meter) as at:
        yield at, key.text


def test_a_customer_asks_and_is_counted(
    way: Callable[..., Ask], service: tuple[str, str], engine: Engine, folder: Path
) -> None:
    at, key = service
    waited: list[float] = []
    ask = way(at, waited, key=key)
    [model] = ask("models")
    assert ask("model", "tiny") == model == Model(**vars(model))
    first = ask("predict", "tiny", ROWS[:2], idempotency_key="one")
    again = ask("predict", "tiny@3", ROWS[:2], idempotency_key="two")
    assert isinstance(first, Prediction) and not first.is_replayed
    assert first.predictions == again.predictions
    assert first.request_id.startswith("req_")
    replayed = ask("predict", "tiny", ROWS[:2], idempotency_key="one")
    assert replayed.is_replayed and replayed.request_id == first.request_id
    many = ask("predict_many", "tiny", ROWS, batch_rows=4)
    plain = open_runtime(folder).predict(ROWS)
    assert [each["label"] for each in many] == [each["label"] for each in plain]
    with pytest.raises(RequestRefused, match="text was expected") as refusal:
        ask("predict", "tiny", [{COLUMN: 5}])
    assert refusal.value.code == "request-invalid" and refusal.value.status == 422
    with pytest.raises(LimitReached, match="limit of 20 rows"):
        ask("predict", "tiny", ROWS[:1] * 8), ask("predict", "tiny", ROWS[:1] * 8)
    with pytest.raises(KeyRefused):
        way(at, waited, key="my_x")("models")
    assert not waited  # none of it gets better by waiting
    [used] = usage.used(engine, usage.Period(0, 2**40))
    assert used["rows"] == 2 + 2 + 6 + 8


class Faulty:
    """A server that answers as it is told, one answer after the other, and keeps what it got."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.keys: list[str | None] = []

    def next(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        assert not body or json.loads(body)["rows"]
        self.keys.append(handler.headers.get("idempotency-key"))
        status, headers, text = self.answers.pop(0)
        if status == 0:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
            handler.close_connection = True
            return
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())


@pytest.fixture
def faulty() -> Iterator[tuple[str, Faulty]]:
    state = Faulty()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            state.next(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", state
    server.shutdown()
    thread.join()
    server.server_close()


GOOD = json.dumps(
    {"model": "m", "version": "1", "predictions": [], "usage": {"rows": 1, "tokens": 2}}
)
AWAY = (503, {"Retry-After": "7"}, '{"detail": "busy", "code": "service-busy"}')


def test_what_fails_is_sent_again_under_the_same_key(
    way: Callable[..., Ask], faulty: tuple[str, Faulty]
) -> None:
    at, state = faulty
    busy = (409, {}, '{"detail": "It is being answered"}')
    state.answers = [
        AWAY, (0, {}, ""), (502, {}, "<html>bad gateway</html>"), busy,
        (429, {"Retry-After": "3"}, "{}"), (200, {}, GOOD),
    ]  # fmt: skip
    waited: list[float] = []
    found = way(at, waited)("predict", "m", [{"text": "x"}])
    assert found.usage.tokens == 2
    assert len(set(state.keys)) == 1 and state.keys[0]
    assert len(state.keys) == 6
    assert waited[0] >= 7 and waited[4] >= 3
    assert all(0 <= seconds < 30 for seconds in waited)


def test_what_does_not_get_better_is_told(
    way: Callable[..., Ask], faulty: tuple[str, Faulty]
) -> None:
    at, state = faulty
    waited: list[float] = []
    ask = way(at, waited, retries=2)
    state.answers = [(429, {}, '{"detail": "used up"}')]
    with pytest.raises(LimitReached, match="used up"):
        ask("predict", "m", [{"text": "x"}])
    state.answers = [(409, {}, '{"detail": "stands for another request"}')]
    with pytest.raises(RequestRefused, match="another request"):
        ask("predict", "m", [{"text": "x"}])
    state.answers = [(200, {}, "<html>a proxy's page</html>")]
    with pytest.raises(Unavailable, match="not one of this service"):
        ask("predict", "m", [{"text": "x"}])
    assert not waited
    state.answers = [AWAY] * 3
    with pytest.raises(Unavailable, match="busy"):
        ask("predict", "m", [{"text": "x"}])
    assert len(waited) == 2
    state.answers = [AWAY]
    with pytest.raises(Unavailable):
        way(at, waited, retry_seconds=5.0)("predict", "m", [{"text": "x"}])
    assert len(waited) == 2  # seven seconds are more than it has
    with pytest.raises(Unavailable, match="gave no answer"):
        way("http://127.0.0.1:9", waited, retries=0)("predict", "m", [{"text": "x"}])


@given(st.integers(0, 10**6), st.one_of(st.none(), st.floats(0, 3600)), st.floats(0, 1))
def test_a_wait_is_never_sooner_than_told_and_is_bounded(
    tries: int, told: float | None, chance: float
) -> None:
    least = told or 0.0
    assert least <= wait_s(tries, told, chance) <= least + clients.MOST_WAIT_S


def test_what_it_sends_and_reads_is_in_the_openapi_document(folder: Path) -> None:
    runtime = open_runtime(folder)
    import httpx

    with served(runtime, info_of(runtime, folder), Serve()) as at:
        document = httpx.get(f"{at}/openapi.json", trust_env=False).json()
    predict = document["paths"]["/v1/models/{name}/predict"]["post"]
    body = predict["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate({"rows": ROWS}, body)
    assert "Idempotency-Key" in {each["name"] for each in predict["parameters"]}
    schemas = document["components"]["schemas"]
    read = {
        "PredictReply": ("model", "version", "predictions", "usage"),
        "UsageReply": ("rows", "tokens"),
        "ModelReply": tuple(Model.__dataclass_fields__),
        "ModelsReply": ("models",),
    }
    for name, fields in read.items():
        assert set(fields) <= set(schemas[name]["required"])
    assert {"/v1/models", "/v1/models/{name}"} <= document["paths"].keys()
    assert {"401", "403", "409", "429", "503"} <= predict["responses"].keys()
