"""Traces: what a collector gets of a request, and what it does not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import Engine
from tests.service_host import COLUMN, commanded, serving, signed, write_release

from modelyard.ledger import customers

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """What takes traces over HTTP, and the spans it got."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_told_with_its_phases_and_no_person(
    collector: tuple[str, list[Any]], engine: Engine, url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    endpoint, spans = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    release = signed(write_release(tmp_path / "release"))
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, key = customers.add_key(engine, "shop", project="web")
    headers = {
        "Authorization": f"Bearer {key.text}",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "user-agent": "ann's telephone",
    }
    with commanded("--database", url, str(release)) as (parent, at):
        reply = httpx.post(
            f"{at}/v1/models/tiny/predict",
            json={"rows": [{COLUMN: "a good film"}]},
            headers=headers,
            trust_env=False,
        )
        httpx.get(f"{at}/livez", trust_env=False)
        parent.terminate()
        assert parent.wait(30) == 0
    by_name = {span.name: span for span in spans}
    assert by_name.keys() == {"POST /v1/models/{name}/predict", "queue", "compute"}
    whole = by_name["POST /v1/models/{name}/predict"]
    assert whole.trace_id.hex() == TRACE
    told = {each.key: each.value for each in whole.attributes}
    assert told["modelyard.request"].string_value == reply.headers["x-request-id"]
    assert told["modelyard.rows"].int_value == 1
    for phase in ("queue", "compute"):
        assert by_name[phase].parent_span_id == whole.span_id
    shown = str(spans)
    for secret in (key.text.split("_")[2], "good film", "telephone"):
        assert secret not in shown


def test_of_proxies_only_those_named_say_how_a_client_asked(
    collector: tuple[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, spans = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own, which is not asked
    release = signed(write_release(tmp_path / "release"))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    with serving(release, "--proxy", "127.0.0.2", "--log") as (parent, at):
        for address in ("127.0.0.2", "127.0.0.1"):
            transport = httpx.HTTPTransport(local_address=address)
            with httpx.Client(transport=transport, base_url=at, headers=headers) as client:
                assert client.get("/v1/models").status_code == 200
        parent.terminate()
        assert parent.wait(30) == 0
        assert parent.stderr is not None
        logged = parent.stderr.read()
    asked = sorted((span for span in spans), key=lambda span: span.start_time_unix_nano)
    told = [{each.key: each.value.string_value for each in span.attributes} for span in asked]
    assert [each["http.scheme"] for each in told] == ["https", "http"]
    assert logged.count("/v1/models") == 2
    assert "203.0.113.7" not in logged + str(spans)
