"""Several releases at once: aliases, shares, shadows, roll-back, load and unload under load."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.http as triton
from sqlalchemy import Engine
from tests.service_host import COLUMN, commanded, signed, write_release

from modelyard.core.errors import SettingInvalid, UnknownName
from modelyard.ledger import customers, deployments
from modelyard.ledger.deployments import Lead
from modelyard.service.catalogue import Alias
from modelyard.serving import place_release

PREDICT = "/v1/models/{name}/predict"
ROW = {"rows": [{COLUMN: "a good film"}]}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The release tiny: versions 3 and 4 know two labels, 5 knows seventy-seven."""
    folder = tmp_path_factory.mktemp("releases")
    labels = {"3": 2, "4": 2, "5": 77}
    return {v: signed(write_release(folder / v, n, v)) for v, n in labels.items()}


class Service:
    """Workers that serve what is deployed, and keys to ask them."""

    def __init__(self, url: str, engine: Engine, key: str, admin: str):
        self.url, self.engine = url, engine
        self.headers = {"Authorization": f"Bearer {key}"}
        self.admin = {"Authorization": f"Bearer {admin}"}

    def ask(self, name: str = "tiny") -> httpx.Response:
        # a connection belongs to one worker: a new one may meet another
        path = f"{self.url}{PREDICT.format(name=name)}"
        return httpx.post(path, json=ROW, headers=self.headers, trust_env=False)

    def point(self, alias: str, shadow: str | None = None, **shares: int) -> None:
        own = {version.removeprefix("v"): weight for version, weight in shares.items()}
        generation = deployments.point(self.engine, Lead("tiny", alias, own, shadow))
        deployments.await_followed(self.engine, generation)


@pytest.fixture
def service(engine: Engine, url: str, releases: dict[str, Path]) -> Iterator[Service]:
    for version in ("3", "4"):
        place_release(engine, releases[version])
    customers.add_organisation(engine, "acme")
    customers.add_project(engine, "acme", "web")
    _, key = customers.add_key(engine, "shop", project="web")
    _, admin = customers.add_key(engine, "me")
    words = ("--deployed", "--database", url, "--workers", "2", "--threads", "1")
    repository = ("--repository", str(releases["5"].parent))
    with commanded(*words, *repository) as (parent, address):
        yield Service(address, engine, key.text, admin.text)
        parent.terminate()
        assert parent.wait(30) == 0


def test_a_release_is_asked_by_alias_and_version(service: Service) -> None:
    assert service.ask().json()["version"] == "4"  # the newest
    assert service.ask("tiny@3").json()["version"] == "3"
    service.point("prod", v3=1)
    service.point("canary", v4=1)
    assert service.ask().json()["version"] == "3"
    assert service.ask("tiny@canary").json()["version"] == "4"
    assert service.ask("tiny@beta").status_code == 404
    service.point("prod", v4=1)
    deployments.await_followed(
        service.engine, deployments.roll_back(service.engine, "tiny", "prod")
    )
    assert {service.ask().json()["version"] for _ in range(8)} == {"3"}


def test_switching_under_load_drops_nothing_and_labels_each_answer(service: Service) -> None:
    is_over = threading.Event()
    met: Counter[Any] = Counter()

    def ask() -> None:
        with httpx.Client(headers=service.headers, trust_env=False) as client:
            while not is_over.is_set():
                reply = client.post(f"{service.url}{PREDICT.format(name='tiny')}", json=ROW)
                met[reply.status_code, reply.json().get("version")] += 1

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for each in askers:
        each.start()
    for number in range(50):
        service.point("prod", **{f"v{3 + number % 2}": 1})
        if number % 10 == 0:
            expected = str(3 + number % 2)
            assert {service.ask().json()["version"] for _ in range(4)} == {expected}
    is_over.set()
    for each in askers:
        each.join()
    assert {status for status, _ in met} == {200}
    assert {version for _, version in met} == {"3", "4"}


def test_tritonclient_loads_and_unloads_under_load(service: Service) -> None:
    is_over = threading.Event()
    met: Counter[int] = Counter()

    def ask() -> None:
        while not is_over.is_set():
            met[service.ask("tiny@4").status_code] += 1

    asker = threading.Thread(target=ask)
    asker.start()
    client = triton.InferenceServerClient(service.url.removeprefix("http://"))
    for _ in range(3):
        client.load_model("tiny@5", headers=service.admin)
        assert {service.ask("tiny@5").status_code for _ in range(6)} == {200}
        index = client.get_model_repository_index(headers=service.admin)
        states = {each["version"]: each["state"] for each in index}
        assert states == dict.fromkeys("345", "READY")
        client.unload_model("tiny@5", headers=service.admin)
        assert {service.ask("tiny@5").status_code for _ in range(6)} == {404}
    is_over.set()
    asker.join()
    assert set(met) == {200}
    with pytest.raises(triton.InferenceServerException, match="No release 'huge'"):
        client.load_model("huge", headers=service.admin)
    with pytest.raises(triton.InferenceServerException, match="which may not do this"):
        client.load_model("tiny@5", headers=service.headers)


def test_a_shadow_is_asked_and_neither_answers_nor_counts(service: Service) -> None:
    service.point("prod", shadow="4", v3=1)
    for _ in range(5):
        assert service.ask().json()["version"] == "3"
    ends = time.monotonic() + 20
    told = ""
    while 'outcome="same",release="tiny",version="4"} 5.0' not in told:
        assert time.monotonic() < ends, told
        told = httpx.get(f"{service.url}/metrics", headers=service.admin, trust_env=False).text
    assert "modelyard_rows_total 5.0" in told  # what the shadow answered is in no count of rows


def test_callers_stay_on_their_side_and_shares_are_kept() -> None:
    alias = Alias((("3", 90), ("4", 10)))
    known = {"3": 0, "4": 0}
    sides = {f"caller {n}": alias.version_for(f"caller {n}", known) for n in range(2000)}
    assert all(alias.version_for(who, known) == side for who, side in sides.items())
    assert 0.07 < list(sides.values()).count("4") / 2000 < 0.13
    assert alias.version_for("anybody", {"3": 0}) == "3"  # the other is not loaded
    assert alias.version_for("anybody", {}) is None


def test_what_cannot_be_pointed_to_is_refused(engine: Engine, releases: dict[str, Path]) -> None:
    place_release(engine, releases["3"])
    for alias, shares, error in (
        ("prod", {"9": 1}, UnknownName),
        ("prod", {"3": 0}, SettingInvalid),
        ("prod", {"3": -1}, SettingInvalid),
        ("Prod!", {"3": 1}, SettingInvalid),
    ):
        with pytest.raises(error):
            deployments.point(engine, Lead("tiny", alias, shares))
    with pytest.raises(UnknownName, match="led nowhere else"):
        deployments.roll_back(engine, "tiny", "prod")
    with pytest.raises(UnknownName):
        deployments.load(engine, "tiny", "9")
