"""schemathesis and hostile bodies against a served release."""

import re
import tempfile
from pathlib import Path

import httpx
from tests.test_service_fuzz import fuzz

from bench.figures import Figure, counted, measures
from bench.flow import SETTINGS, _small
from bench.projects import run
from modelyard.service.load import served

CASES = 2000
HANG_S = 20
DEEP = 100_000


@measures("fuzz")
def fuzzing() -> list[Figure]:
    """Cases made from the OpenAPI document, then bodies that no document describes."""
    report = run(_small("fuzz"), *(word for word in SETTINGS if word != "--set"))
    failures: list[str] = []
    with served(Path(report["release"])) as (url, _), tempfile.TemporaryDirectory() as folder:
        try:
            sent = sent_in(fuzz(url, CASES, Path(folder)))
        except AssertionError as error:
            failures.append(str(error)[-300:])
            sent = CASES
        bodies = hostile_bodies()
        failures += _hostile(url, report["name"], bodies)
    said = (
        "schemathesis on the OpenAPI of a served release (no 5xx, nothing undeclared, no reply "
        f"over 5 s), then {len(bodies)} hostile bodies to two routes (4xx within {HANG_S} s)"
    )
    return [counted("requests answered with 5xx or not at all", failures, sent, said)]


def sent_in(summaries: str) -> int:
    """How many cases schemathesis says that it has sent."""
    return sum(int(number) for number in re.findall(r"(\d+) generated", summaries))


def hostile_bodies() -> dict[str, bytes]:
    """Bodies by name: each must be refused with 4xx."""
    return {
        "empty": b"",
        "huge": b'{"rows":[{"text":"' + b"a" * 50_000_000 + b'"}]}',
        "huge text": b'{"rows":[{"text":"' + b"a" * 200_000 + b'"}]}',
        "NUL": b"\0" * 1000,
        "wrong types": b'{"rows":[{"text":12}],"inputs":7}',
        "rows of null": b'{"rows":null,"inputs":null}',
        "deeply nested": b"[" * DEEP + b"]" * DEEP,
        "deeply nested objects": b'{"rows":' * DEEP + b"1" + b"}" * DEEP,
        "not UTF-8": b'{"rows":[{"text":"\xff\xfe\x80"}]}',
        "long integer": b'{"rows":' + b"9" * 10_000 + b"}",
        "not a number": b'{"rows":NaN}',
        "half a surrogate pair": b'{"rows":[{"text":"\\ud800"}]}',
        "cut short": b'{"rows":[{"text":"a"',
    }


def _hostile(url: str, name: str, bodies: dict[str, bytes]) -> list[str]:
    failures = []
    for route in (f"/v1/models/{name}/predict", f"/v2/models/{name}/infer"):
        for told, body in bodies.items():
            headers = {"content-type": "application/json"}
            try:
                status = httpx.post(url + route, content=body, headers=headers, timeout=HANG_S)
                if not 400 <= status.status_code < 500:
                    failures.append(f"{route} {told}: {status.status_code}")
            except httpx.TransportError as error:
                if told != "huge":  # the server may stop reading a body over its limit
                    failures.append(f"{route} {told}: {error!r}")
    return failures
