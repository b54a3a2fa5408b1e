"""The Open Inference Protocol by its own client and by plain JSON, against Python's predict."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton

import modelyard
from bench.figures import Figure, counted, measures
from bench.flow import SETTINGS, _small
from bench.projects import parts, rows_of, run
from modelyard.service.load import served

ROWS = 200
MOST_DIFFERENCE = 1e-3  # an int8 rounding step may differ with the length a batch is padded to


@measures("protocol")
def protocol() -> list[Figure]:
    """The same rows through tritonclient (binary), JSON on /v2, the native API, and Python."""
    folder = _small("protocol")
    report = run(folder, *(word for word in SETTINGS if word != "--set"))
    release = Path(report["release"])
    texts = [text for text, _ in rows_of(parts(folder) / "test.parquet")][:ROWS]
    wanted = modelyard.load(release).predict([{"text": text} for text in texts])
    with served(release) as (url, _):
        ways = {
            "tritonclient binary": _triton(url, report["name"], texts),
            "JSON on /v2": _json(url, report["name"], texts),
            "native": _native(url, report["name"], texts),
        }
    failures = [
        f"{way}: row {number}"
        for way, answers in ways.items()
        for number, (one, other) in enumerate(zip(wanted, answers, strict=True))
        if one["label"] != other[0] or abs(one["score"] - other[1]) > MOST_DIFFERENCE
    ]
    said = f"{len(texts)} reviews; labels equal and scores within {MOST_DIFFERENCE} of predict's"
    return [counted("answers that differ between the ways to ask", failures, 3 * len(texts), said)]


def _triton(url: str, name: str, texts: list[str]) -> list[tuple[str, float]]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(
        np.array([t.encode() for t in texts], dtype=object), binary_data=True
    )
    wanted = [triton.InferRequestedOutput(out, binary_data=True) for out in ("label", "score")]
    told = client.infer(name, [tensor], outputs=wanted)
    labels = [value.decode() for value in told.as_numpy("label")]
    return list(zip(labels, told.as_numpy("score").tolist(), strict=True))


def _json(url: str, name: str, texts: list[str]) -> list[tuple[str, float]]:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    reply = httpx.post(f"{url}/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=60)
    reply.raise_for_status()
    outputs: dict[str, Any] = {each["name"]: each["data"] for each in reply.json()["outputs"]}
    return list(zip(outputs["label"], outputs["score"], strict=True))


def _native(url: str, name: str, texts: list[str]) -> list[tuple[str, float]]:
    body = {"rows": [{"text": text} for text in texts]}
    reply = httpx.post(f"{url}/v1/models/{name}/predict", json=body, timeout=60)
    reply.raise_for_status()
    return [(each["label"], each["score"]) for each in reply.json()["predictions"]]
