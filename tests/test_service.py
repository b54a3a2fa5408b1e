"""The service over HTTP: the native API, OIP with the real tritonclient, limits and robustness."""

import gzip
import json
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.service_host import COLUMN, info_of, open_runtime, served, slowed, write_release
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from modelyard.core.project import Serve
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.runtime import Runtime

PREDICT = "/v1/models/tiny/predict"
INFER = "/v2/models/tiny/infer"
LIMITS = Serve(max_rows=64, max_characters=500, max_body_bytes=20_000)
TEXTS = ["good film", "the plot was not very good and the film is dull", "好 坏", "ö\x00 nul"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Runtime:
    return open_runtime(folder)


@pytest.fixture(scope="module")
def url(folder: Path, runtime: Runtime) -> Iterator[str]:
    with served(runtime, info_of(runtime, folder), LIMITS) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client


def rows(texts: list[str]) -> list[dict[str, str]]:
    return [{COLUMN: text} for text in texts]


def same(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Labels exactly; scores to the last bits of float32, which batch shapes may change."""
    return all(
        a["label"] == b["label"]
        and a["scores"].keys() == b["scores"].keys()
        and np.allclose(list(a["scores"].values()), list(b["scores"].values()), atol=1e-6)
        for a, b in zip(got, expected, strict=True)
    )


# The native API


def test_predict_answers_as_the_runtime_does(client: httpx.Client, runtime: Runtime) -> None:
    reply = client.post(PREDICT, json={"rows": rows(TEXTS)})
    assert reply.status_code == 200
    body = reply.json()
    assert (body["model"], body["version"]) == ("tiny", "3")
    assert same(body["predictions"], runtime.predict(rows(TEXTS)))
    tokens = int(runtime.encode(rows(TEXTS)).lengths.sum())
    assert body["usage"] == {"rows": 4, "tokens": tokens}


def test_other_columns_may_stand_beside(client: httpx.Client) -> None:
    reply = client.post(PREDICT, json={"rows": [{"id": 7, COLUMN: "good"}]})
    assert reply.status_code == 200


def test_models(client: httpx.Client) -> None:
    (listed,) = client.get("/v1/models").json()["models"]
    assert listed == client.get("/v1/models/tiny").json()
    assert listed["inputs"] == [{"name": COLUMN, "kind": "text"}]
    assert listed["labels"] == ["bad", "good"]
    assert listed["limits"]["max_rows"] == 64


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress])
def test_compressed_bodies(client: httpx.Client, encode: Any) -> None:
    name = {gzip.compress: "gzip", zlib.compress: "deflate"}[encode]
    headers = {"content-type": "application/json", "content-encoding": name}
    body = json.dumps({"rows": rows(TEXTS)}).encode()
    assert client.post(PREDICT, content=encode(body), headers=headers).status_code == 200
    bomb = encode(b" " * 10_000_000)
    assert client.post(PREDICT, content=bomb, headers=headers).status_code == 413
    for broken in (b"no", encode(body)[:-9], encode(body) + b"x"):
        assert client.post(PREDICT, content=broken, headers=headers).status_code == 422
    headers["content-encoding"] = "br"
    assert client.post(PREDICT, content=body, headers=headers).status_code == 415


def as_problem(reply: httpx.Response) -> dict[str, Any]:
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["status"] == reply.status_code
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert "Traceback" not in problem["detail"]
    return problem


DEEP = b'{"rows": ' + b"[" * 9000 + b"]" * 9000 + b"}"
BAD_BODIES = {
    "empty": (b"", "is empty"),
    "NUL": (b"\0" * 100, "not JSON"),
    "no JSON": (b"rows=3", "not JSON"),
    "a list": (b"[]", "valid dictionary"),
    "a number": (b"7", "valid dictionary"),
    "no rows key": (b"{}", "rows"),
    "rows null": (b'{"rows": null}', "rows"),
    "rows text": (b'{"rows": "x"}', "rows"),
    "rows of text": (b'{"rows": ["x"]}', "rows[0]"),
    "no rows": (b'{"rows": []}', "give 1 to 64"),
    "unknown key": (b'{"rows": [{"text": "x"}], "rwos": 1}', "rwos"),
    "column missing": (b'{"rows": [{"txt": "x"}]}', "column 'text'"),
    "wrong type": (b'{"rows": [{"text": 7}]}', "text was expected"),
    "null": (b'{"rows": [{"text": null}]}', "text was expected"),
    "empty text": (b'{"rows": [{"text": " "}]}', "empty"),
    "second row": (b'{"rows": [{"text": "a"}, {"text": ""}]}', "Row 2"),
    "not UTF-8": (b'{"rows": [{"text": "\xff"}]}', "not UTF-8"),
    "UTF-16": ('{"rows": [{"text": "x"}]}'.encode("utf-16"), "not UTF-8"),
    "NaN": (b'{"rows": [{"text": "x", "n": NaN}]}', "NaN"),
    "Infinity": (b'{"rows": [{"text": "x", "n": -Infinity}]}', "Infinity"),
    "beyond a float": (b'{"rows": [{"text": "x", "n": 1e999}]}', "too large"),
    "key twice": (b'{"rows": [{"text": "x", "text": "y"}]}', "twice"),
    "half a surrogate pair": (b'{"rows": [{"text": "\\ud83d"}]}', "surrogate"),
    "half a pair as key": (b'{"rows": [{"\\ud83d": 1}]}', "surrogate"),
    "10,000 digits": (b'{"rows": [{"text": "x", "n": ' + b"9" * 10_000 + b"}]}", "digits"),
    "nested deeply": (DEEP, "nested too deeply"),
    "objects nested deeply": (b'{"a":' * 3000 + b"1" + b"}" * 3000, "nested too deeply"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_in_a_sentence(client: httpx.Client, name: str) -> None:
    body, said = BAD_BODIES[name]
    reply = client.post(PREDICT, content=body, headers={"content-type": "application/json"})
    problem = as_problem(reply)
    assert (reply.status_code, said in problem["detail"]) == (422, True), problem
    assert problem["type"] == f"docs/errors/{problem['code']}.md"
    oip = client.post(INFER, content=body)
    assert oip.status_code == 400
    assert list(oip.json()) == ["error"]


def test_limits(client: httpx.Client) -> None:
    def refused(**request: Any) -> str:
        problem = as_problem(client.post(PREDICT, **request))
        assert (problem["status"], problem["code"]) == (413, "request-too-large")
        return str(problem["detail"])

    assert "65 rows" in refused(json={"rows": rows(["x"] * 65)})
    assert "501 characters" in refused(json={"rows": rows(["x" * 501])})
    as_json = {"content-type": "application/json"}
    assert "20,000 bytes" in refused(content=b" " * 20_001, headers=as_json)
    assert "20,000 bytes" in refused(content=(b" " * 100 for _ in range(1000)), headers=as_json)
    fits = client.post(PREDICT, json={"rows": rows(["x" * 250] * 64)})
    assert fits.status_code == 200


def test_a_body_over_the_limit_is_refused_while_it_streams_in(url: str) -> None:
    enough = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b" " * 30_000
        assert enough.wait(20)  # the rest never comes before the answer

    def stream() -> int:
        with httpx.Client(base_url=url, trust_env=False) as client:
            return client.post(PREDICT, content=endless(), headers=as_json).status_code

    as_json = {"content-type": "application/json"}
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(stream)
        for _ in range(1000):
            if '"POST",route="/v1/models/{name}/predict",status="413"' in metrics(url):
                break
        enough.set()
        assert status.result() == 413


def test_a_head_without_end_is_refused(url: str) -> None:
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address, 20) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(1000):
            connection.sendall(b"a" * 65_536)
    assert httpx.get(url, headers={"x": "a" * 60_000}, trust_env=False).status_code == 200


def metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics", trust_env=False).text


def counted(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics(url), re.MULTILINE)
    return sum(map(float, found))


def test_wrong_paths_methods_and_types(client: httpx.Client) -> None:
    assert as_problem(client.get("/nothing"))["status"] == 404
    assert as_problem(client.get("/v1/models/other"))["code"] == "unknown-name"
    assert as_problem(client.get(PREDICT))["status"] == 405
    wrong_type = client.post(PREDICT, content=b"x", headers={"content-type": "text/plain"})
    assert as_problem(wrong_type)["status"] == 415
    for path in ("/v2/nothing", "/v2/models/other", "/v2/models/tiny/versions/4", "/v2/"):
        reply = client.get(path)
        assert (reply.status_code, list(reply.json())) == (404, ["error"])
    reply = client.get(INFER)
    assert (reply.status_code, list(reply.json())) == (405, ["error"])
    assert reply.headers["allow"] == "POST"


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    for path in ("/", "/v2/health/ready", "/v1/models", "/metrics"):
        reply = client.head(path)
        assert (reply.status_code, reply.content) == (200, b"")


def test_security_headers(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/report", "/v1/models", "/nothing", "/assets/try.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert "server" not in headers


def test_a_failure_shows_no_traceback(folder: Path) -> None:
    def broken(encoded: Encoded) -> None:
        raise MemoryError("secret")

    runtime = slowed(open_runtime(folder), broken)
    with served(runtime, info_of(runtime, folder), LIMITS) as url:
        reply = httpx.post(f"{url}{PREDICT}", json={"rows": rows(["x"])}, trust_env=False)
        assert as_problem(reply)["status"] == 500
        assert "secret" not in reply.text
        oip = httpx.post(f"{url}{INFER}", json=infer_json(["x"]), trust_env=False)
        assert (oip.status_code, list(oip.json())) == (500, ["error"])


# The Open Inference Protocol


def infer_json(texts: list[str], **more: Any) -> dict[str, Any]:
    tensor = {"name": COLUMN, "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return {"inputs": [tensor], **more}


@pytest.fixture(scope="module")
def tritonclient(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def tensor(texts: list[str], binary: bool, shape: list[int]) -> triton.InferInput:
    given = triton.InferInput(COLUMN, shape, "BYTES")
    values = np.array([text.encode() for text in texts], dtype=np.object_).reshape(shape)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def answers_of(result: triton.InferResult) -> list[dict[str, Any]]:
    labels, score, scores = (result.as_numpy(name) for name in ("label", "score", "scores"))
    assert (labels.shape, score.dtype, scores.dtype) == (score.shape, np.float32, np.float32)
    texts = [label.decode() if isinstance(label, bytes) else label for label in labels]
    return [
        {"label": label, "score": one, "scores": dict(zip(["bad", "good"], each, strict=True))}
        for label, one, each in zip(texts, score.tolist(), scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_gives_what_predict_gives(
    tritonclient: triton.InferenceServerClient,
    runtime: Runtime,
    binary_in: bool,
    binary_out: bool | None,
    compression: str | None,
) -> None:
    names = ("label", "score", "scores")
    asked = [triton.InferRequestedOutput(name, binary_data=bool(binary_out)) for name in names]
    result = tritonclient.infer(
        "tiny",
        [tensor(TEXTS, binary_in, [len(TEXTS), 1])],
        outputs=None if binary_out is None else asked,
        request_id="42",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.get_response()["id"] == "42"
    assert same(answers_of(result), runtime.predict(rows(TEXTS)))


def test_tritonclient_reads_the_metadata(tritonclient: triton.InferenceServerClient) -> None:
    assert tritonclient.is_server_live()
    assert tritonclient.is_server_ready()
    assert tritonclient.is_model_ready("tiny")
    assert tritonclient.is_model_ready("tiny", "3")
    assert not tritonclient.is_model_ready("tiny", "4")
    assert "binary_tensor_data" in tritonclient.get_server_metadata()["extensions"]
    described = tritonclient.get_model_metadata("tiny", "3")
    assert described["inputs"] == [{"name": COLUMN, "datatype": "BYTES", "shape": [-1]}]
    shapes = {each["name"]: each["shape"] for each in described["outputs"]}
    assert shapes == {"label": [-1], "score": [-1], "scores": [-1, 2]}


def test_tritonclient_sees_errors(tritonclient: triton.InferenceServerClient) -> None:
    good = [tensor(["x"], True, [1])]
    with pytest.raises(InferenceServerException, match="no model 'other'"):
        tritonclient.infer("other", good)
    with pytest.raises(InferenceServerException, match="no output 'x'"):
        tritonclient.infer("tiny", good, outputs=[triton.InferRequestedOutput("x")])
    classes = triton.InferRequestedOutput("label", class_count=2)
    with pytest.raises(InferenceServerException, match="not supported"):
        tritonclient.infer("tiny", good, outputs=[classes])
    with pytest.raises(InferenceServerException, match="65 rows") as raised:
        tritonclient.infer("tiny", [tensor(["x"] * 65, True, [65])])
    assert raised.value.status() == "413"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"outputs": [{"name": "scores"}] * 300}, "asked for twice"),
        ({"parameters": {str(n): [] for n in range(300)}}, "at most 100"),
        ({"inputs": [1] * 3000}, "inputs[0]"),
    ],
)
def test_floods_are_refused_at_their_first_problem(
    client: httpx.Client, more: dict[str, Any], said: str
) -> None:
    reply = client.post(INFER, json=infer_json(["x"]) | more)
    assert (reply.status_code, said in reply.json()["error"]) == (400, True), reply.text
    assert "more problems" not in reply.text
    flood = client.post(PREDICT, json={"rows": []} | dict.fromkeys(map(str, range(300)), 1))
    assert "300 problems" in as_problem(flood)["detail"]


def test_a_number_beyond_a_float_is_no_parameter(client: httpx.Client) -> None:
    body = json.dumps(infer_json(["x"], parameters={"x": 7})).replace("7", "1e999")
    assert client.post(INFER, content=body).status_code == 400


def test_only_the_outputs_asked_for_come(client: httpx.Client) -> None:
    outputs = [{"name": "score"}, {"name": "label", "parameters": {"binary_data": False}}]
    body = infer_json(TEXTS, outputs=outputs, parameters={"customer": "a", "timeout": 3})
    reply = client.post("/v2/models/tiny/versions/3/infer", json=body).json()
    assert [each["name"] for each in reply["outputs"]] == ["score", "label"]
    assert reply["parameters"] == {"customer": "a"}
    assert (reply["model_name"], reply["model_version"]) == ("tiny", "3")


BAD_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"name": "other"}, "takes ['text']"),
    "another type": ({"datatype": "FP32"}, "takes BYTES"),
    "shape too large": ({"shape": [2]}, "shape [2] and 1 elements"),
    "shape negative": ({"shape": [-1]}, "takes [B]"),
    "three axes": ({"shape": [1, 1, 1]}, "takes [B]"),
    "two columns": ({"shape": [1, 2]}, "takes [B]"),
    "no axis": ({"shape": []}, "takes [B]"),
    "a number": ({"data": [7]}, "text was expected"),
    "deep": ({"data": [[["x"]]]}, "text was expected"),
    "no data": ({"data": None}, "neither data"),
    "shared memory": ({"parameters": {"shared_memory_region": "x"}}, "not supported"),
    "binary size too large": ({"parameters": {"binary_data_size": 5}}, "binary_data_size 5"),
    "binary size negative": ({"parameters": {"binary_data_size": -5}}, "binary_data_size -5"),
    "binary size true": ({"parameters": {"binary_data_size": True}}, "binary_data_size True"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors_are_refused_in_a_sentence(client: httpx.Client, name: str) -> None:
    changed, said = BAD_TENSORS[name]
    body = infer_json(["x"])
    body["inputs"][0] |= changed
    reply = client.post(INFER, json=body)
    assert (reply.status_code, said in reply.json()["error"]) == (400, True), reply.text


@pytest.mark.parametrize(
    ("length", "binary", "said"),
    [
        ("zero", b"", "gives the length"),
        ("-1", b"", "gives the length"),
        ("9" * 5000, b"", "gives the length"),
        ("99999", b"", "gives the length"),
        (None, b"\x09\0\0\0abc", "ends inside element 1"),
        (None, b"\x01\0\0", "ends inside element 1"),
        (None, b"\xff\xff\xff\xffabc", "ends inside element 1"),
        (None, b"\x01\0\0\0\xff", "not UTF-8"),
        (None, b"\x01\0\0\0a\x01\0\0\0a", "has shape [1] and 2 elements"),
        (None, b"\0\0\0\0", "empty"),
    ],
)
def test_bad_binary_bodies(
    client: httpx.Client, length: str | None, binary: bytes, said: str
) -> None:
    body = infer_json(["x"])
    del body["inputs"][0]["data"]
    body["inputs"][0]["parameters"] = {"binary_data_size": len(binary)}
    head = json.dumps(body).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    reply = client.post(INFER, content=head + binary, headers=headers)
    assert (reply.status_code, said in reply.json()["error"]) == (400, True), reply.text


def test_bytes_left_over_are_refused(client: httpx.Client) -> None:
    head = json.dumps(infer_json(["x"])).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    reply = client.post(INFER, content=head + b"more", headers=headers)
    assert "4 bytes follow" in reply.json()["error"]


# What is counted, and the pages


def test_metrics_count_rows_and_routes(client: httpx.Client, url: str) -> None:
    before = counted(url, "modelyard_rows_total"), counted(url, "modelyard_tokens_total")
    usage = client.post(PREDICT, json={"rows": rows(TEXTS)}).json()["usage"]
    client.post(PREDICT, json={"rows": [{}]})
    assert counted(url, "modelyard_rows_total") == before[0] + 4
    assert counted(url, "modelyard_tokens_total") == before[1] + usage["tokens"]
    assert counted(url, "modelyard_admitted_rows") == 0
    assert 'route="/v1/models/{name}/predict",status="422"' in metrics(url)


def test_pages_hold_all_they_need(client: httpx.Client) -> None:
    for path in ("/", "/docs"):
        page = client.get(path).text
        links = re.findall(r"""(?:src|href)="([^"#]+)""", page)
        assert links
        assert all(link.startswith("/") for link in links)
        for link in links:
            assert client.get(link).status_code == 200
    assert client.get("/assets/none.js").status_code == 404
    assert "An audit" in client.get("/report").text
