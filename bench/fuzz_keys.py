"""schemathesis against a service that asks for keys: with those of two roles, a wrong one, none."""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine
from tests.service_host import signed, write_release
from tests.tenants import Tenant, tenant
from tests.test_customers_fuzz import known
from tests.test_service_fuzz import fuzz

from bench.figures import Figure, counted, measures
from bench.fuzz import sent_in
from modelyard.ledger import customers, usage
from modelyard.ledger.database import opened
from modelyard.ledger.revisions import ready
from modelyard.service.load import served

CASES = 1250
"""Of each caller."""
CALLERS = ("an admin", "a developer", "a wrong key", "no key")
SOON_S = 1.0
PREDICT = "/v1/models/tiny/predict"
STATUSES = re.compile(r'^modelyard_requests_total\{.*status="(\d+)".*\} (\S+)$', re.MULTILINE)
WRONG = "my_000000000000_" + "0" * 48
CONFIG = """
[checks]
negative_data_rejection.enabled = false
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 429]

# That a key still holds cannot be said in a schema.
[[operations]]
include-path-regex = "/rotate$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 422]

# Nor that a tensor's shape fits its data and the header its body.
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 409, 413, 429]

# Nor which releases have vectors or labels to give.
[[operations]]
include-path-regex = "^/v1/(embeddings|moderations)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 429]
"""


@dataclass
class Keyed:
    """A service that asks for keys, whoever is fuzzed there, and somebody who is left alone."""

    url: str
    engine: Engine
    fuzzed: Tenant
    admin: str
    bystander: str

    def get(self, path: str) -> str:
        """What the service tells whoever runs it."""
        headers = {"Authorization": f"Bearer {self.admin}"}
        reply = httpx.get(self.url + path, headers=headers, trust_env=False)
        return reply.raise_for_status().text

    def answered_s(self) -> float:
        """How long a look at /livez and an ordinary request take; raises where one fails."""
        began = time.perf_counter()
        httpx.get(f"{self.url}/livez", trust_env=False).raise_for_status()
        headers = {"Authorization": f"Bearer {self.bystander}"}
        body = {"rows": [{"text": "a good film"}]}
        reply = httpx.post(self.url + PREDICT, json=body, headers=headers, trust_env=False)
        reply.raise_for_status()
        return time.perf_counter() - began


@contextmanager
def keyed() -> Iterator[Keyed]:
    """`modelyard serve` on a tiny release and an empty ledger in SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        release = signed(write_release(Path(folder) / "release"))
        url = f"sqlite:///{folder}/ledger.sqlite3"
        engine = ready(opened(url))
        own, other = tenant(engine, "Acme"), tenant(engine, "Quorvax")
        usage.rebuild(engine)  # without what a tenant of the tests is said to have used
        admin = customers.add_key(engine, "me")[1].text
        with served(release, ("--database", url), dev=False) as (at, _):
            yield Keyed(at, engine, own, admin, other.keys["service"])
        engine.dispose()


@measures("fuzz-keys")
def fuzzing_with_keys() -> list[Figure]:
    """Cases made from the OpenAPI document, by each of four callers on a service of its own."""
    found, failed, soon = [], [], []
    sent, began = 0, time.perf_counter()
    for name in CALLERS:
        with keyed() as service:
            cases, failure = _fuzzed(service, _key(service, name))
            soon.append(service.answered_s())
            failed += [f"{name}: {status}" for status in _failed(service)]
            assert not usage.differences(service.engine)
        sent += cases
        found += [f"{name}: {failure}"] * bool(failure)
        print(f"  {name}: {cases} cases, {time.perf_counter() - began:.0f} s", flush=True)
    said = (
        "schemathesis on every route of `modelyard serve` with a ledger in SQLite, with the keys "
        f"of an admin and of a developer, a wrong key and none; {time.perf_counter() - began:.0f} s"
    )
    then = "/livez and another customer's request, right after the cases of each; the books agree"
    return [
        counted("requests with and without keys answered with 5xx", failed, sent, said),
        counted("answers that were undeclared, or took over 5 s", found, sent, said),
        Figure(
            "an answer after thousands of fuzzed requests",
            max(soon),
            min(soon),
            max(soon),
            SOON_S,
            "<",
            "s",
            then,
        ),
    ]


def _key(service: Keyed, caller: str) -> str | None:
    match caller:
        case "an admin":
            return service.admin
        case "a developer":
            return service.fuzzed.keys["developer"]
        case "a wrong key":
            return WRONG
    return None


def _fuzzed(service: Keyed, key: str | None) -> tuple[int, str]:
    """How many cases were sent, and what was found."""
    more = ["--header", f"Authorization: Bearer {key}"] if key else []
    config = CONFIG + known(service.fuzzed)
    with tempfile.TemporaryDirectory() as folder:
        phases = "examples,coverage,fuzzing"
        try:
            return sent_in(fuzz(service.url, CASES, Path(folder), phases, config, more)), ""
        except AssertionError as error:
            print(error, flush=True)
            return sent_in(str(error)), str(error)[-300:]


def _failed(service: Keyed) -> list[str]:
    """The status of each answer of 5xx, as the service has counted them."""
    counts = STATUSES.findall(service.get("/metrics"))
    assert sum(float(count) for _, count in counts) > CASES
    return [code for code, count in counts if code[0] == "5" for _ in range(int(float(count)))]
