"""What a key may ask and be told of, what a request is known by, and the document of the API."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient
from tests.service_host import COLUMN, info_of

from modelyard.core.project import Serve
from modelyard.ledger import customers
from modelyard.runtime.runtime import Runtime
from modelyard.service.app import Service
from modelyard.service.catalogue import Alias
from modelyard.serving import metered

ROWS = {"rows": [{COLUMN: "good"}]}
INFER = "/v2/models/tiny/infer"
SECRET = "secret"  # a release that the key may not ask
REPORT = "<title>Report</title>"
Asks = TestClient


@pytest.fixture
def service(
    url: str, engine: Engine, tiny_runtime: Runtime, tiny_folder: Path
) -> Iterator[Service]:
    """The releases secret and tiny, metered; secret is the first."""
    with metered(url) as meter:
        made = Service(meter=meter)
        info = info_of(tiny_runtime, tiny_folder)
        for name in (SECRET, "tiny"):
            made.add(tiny_runtime, replace(info, name=name), Serve.model_validate({}))
        yield made


@pytest.fixture
def asks(service: Service, engine: Engine) -> Iterator[Asks]:
    """Somebody with a key for tiny alone."""
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, key = customers.add_key(engine, "shop", project="web", releases=["tiny"])
    with TestClient(service.app(), headers={"authorization": f"Bearer {key.text}"}) as client:
        yield client


ASKED = {
    "predict": ("POST", "/v1/models/{}/predict", ROWS),
    "describe": ("GET", "/v1/models/{}", None),
    "infer": ("POST", "/v2/models/{}/infer", {"inputs": []}),
    "metadata": ("GET", "/v2/models/{}", None),
    "ready": ("GET", "/v2/models/{}/versions/3/ready", None),
    "embeddings": ("POST", "/v1/embeddings", {"model": "{}", "input": "good"}),
    "moderations": ("POST", "/v1/moderations", {"model": "{}", "input": "good"}),
    "report": ("GET", "/report?model={}", None),
}


@pytest.mark.parametrize("name", [SECRET, f"{SECRET}@3", "nowhere"])
@pytest.mark.parametrize("family", ASKED)
def test_a_key_is_told_of_its_own_releases_alone(asks: Asks, family: str, name: str) -> None:
    """One that there is and one that there is not are refused alike."""
    method, path, body = ASKED[family]
    own = json.loads(json.dumps(body).replace("{}", name))
    told = asks.request(method, path.format(name), **({} if own is None else {"json": own}))
    assert told.status_code == 403
    assert f"may not ask the release '{name}'; it may ask tiny." in told.text
    assert SECRET in name or SECRET not in told.text


def test_a_key_for_one_release_lists_and_reads_that_one(asks: Asks) -> None:
    assert [each["name"] for each in asks.get("/v1/models").json()["models"]] == ["tiny"]
    assert asks.get("/v2/models/tiny").json()["versions"] == ["3"]
    assert asks.post("/v1/models/tiny/predict", json=ROWS).status_code == 200
    assert REPORT in asks.get("/report").text
    unknown = asks.get("/v1/models/tiny@9")
    assert unknown.status_code == 404 and SECRET not in unknown.text


def test_the_same_bytes_read_otherwise_are_another_request(asks: Asks) -> None:
    document: dict[str, Any] = {
        "inputs": [{"name": COLUMN, "datatype": "BYTES", "shape": [1], "data": ["good"]}]
    }
    body = json.dumps(document).encode()

    def sent(content: bytes, key: str, **headers: str) -> httpx.Response:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        return asks.post(INFER, content=content, headers={"idempotency-key": key} | own)

    length = str(len(body))
    assert sent(body, "one", inference_header_content_length=length).status_code == 200
    again = sent(body, "one", inference_header_content_length=length)
    assert again.headers["idempotency-replayed"] == "true"
    assert sent(body, "one").status_code == 409
    packed = gzip.compress(body)
    assert sent(packed, "two", content_encoding="gzip").status_code == 200
    assert sent(packed, "two", content_encoding="deflate").status_code == 409


def test_the_document_is_made_once_and_anew_when_releases_or_aliases_change(
    service: Service, asks: Asks, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = [], service._described
    monkeypatch.setattr(service, "_described", lambda: made.append(1) or make())

    def names() -> list[str]:
        told = asks.get("/openapi.json").json()["paths"]["/v1/models/{name}"]["get"]
        return list(told["parameters"][0]["schema"]["enum"])

    assert names() == names() == [SECRET, f"{SECRET}@3", "tiny", "tiny@3"]
    assert len(made) == 1
    service.catalogue.lead({("tiny", "canary"): Alias((("3", 1),))})
    assert "tiny@canary" in names()
    service.catalogue.remove(SECRET, "3")
    assert names() == names() == ["tiny", "tiny@3", "tiny@canary"]
    service.catalogue.lead({("tiny", "canary"): Alias((("3", 1),))})  # as it was
    assert names() and len(made) == 3
