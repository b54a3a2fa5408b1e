"""Every input with every target: trained, audited, served, and the same answers everywhere."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from tests.tiny import BAD, GOOD, OTHER, TINY_TRAINING

import modelyard
from modelyard import inputs, targets
from modelyard.cli.main import main
from modelyard.core.project import Serve
from modelyard.doors import open_release, release_info
from modelyard.service.app import create_app

Row = dict[str, Any]
ROWS = 400
TRAINING = TINY_TRAINING | {"epochs": 15, "patience": 0, "learning_rate": 2e-3}


@dataclass(frozen=True)
class Kind:
    """What a row's target is when its words are these, and the least a trained model reaches."""

    truth: Callable[[list[str]], Any]
    least: float


TARGETS = {
    "class": Kind(lambda words: "good" if set(words) & set(GOOD) else "bad", 0.9),
    "labels": Kind(
        lambda words: [
            name
            for name, own in (("praise", GOOD), ("blame", BAD), ("music", ["music"]))
            if set(words) & set(own)
        ],
        0.85,
    ),
}


def test_every_kind_has_its_row() -> None:
    assert set(TARGETS) == set(targets.MODULES)
    assert inputs.KINDS == ("text",)


def _rows(kind: Kind) -> list[Row]:
    rng, rows = random.Random(0), []
    for number in range(ROWS):
        words = rng.choices(OTHER, k=rng.randint(1, 8)) + rng.choices((GOOD, BAD)[number % 2], k=2)
        rng.shuffle(words)
        rows.append({"text": " ".join([*words, f"({number})"]), "answer": kind.truth(words)})
    return rows


@dataclass(frozen=True)
class Made:
    """A project that has been run."""

    folder: Path
    release: Path
    rows: list[Row]
    least: float


@pytest.fixture(scope="module", params=TARGETS)
def made(
    request: pytest.FixtureRequest, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    kind = TARGETS[request.param]
    folder, rows = tmp_path_factory.mktemp(request.param), _rows(kind)
    lines = [json.dumps(row) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    training = "\n".join(f"{name} = {json.dumps(value)}" for name, value in TRAINING.items())
    (folder / "modelyard.toml").write_text(
        f'name = "tiny"\n[data]\nrows = "rows.jsonl"\nsplit = {{ test = 0.25 }}\n'
        f'[inputs]\ntext = "text"\n[target]\ncolumn = "answer"\nkind = "{request.param}"\n'
        f'[backbone]\ntext = "{tiny_backbone}"\n[train]\n{training}\n',
        encoding="utf-8",
    )
    return Made(folder, modelyard.run(folder).folder, rows, kind.least)


def test_it_learns_what_can_be_learned_and_is_ahead_of_a_constant(made: Made) -> None:
    report = json.loads((made.release / "report.json").read_text(encoding="utf-8"))
    main_measure = next(each for each in report["measures"] if each["name"] == report["main"])
    assert main_measure["value"] >= made.least
    assert main_measure["low"] <= main_measure["value"] <= main_measure["high"]
    constant, linear = report["baselines"]
    assert constant["judgement"] == "better" and linear["difference"]["rows"] == 100


def test_the_audits_answers_are_those_of_python(made: Made) -> None:
    [audit] = (made.folder / ".modelyard" / "objects").glob("audit-*")
    told = pq.read_table(audit / "predictions.parquet").to_pylist()
    runtime = modelyard.load(made.release)
    for row, answer in zip(
        told, runtime.predict([made.rows[r["_row"] - 1] for r in told]), strict=True
    ):
        for name, value in answer.items():
            known = json.loads(row[name]) if isinstance(value, dict | list) else row[name]
            assert known == pytest.approx(value, abs=1e-6), name


def test_http_and_files_answer_as_python_does(made: Made, tmp_path: Path) -> None:
    some = [{"text": row["text"]} for row in made.rows[:12]]
    wanted = modelyard.load(made.release).predict(some)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    assert main(["predict", str(made.release), str(tmp_path / "rows.jsonl")]) == 0
    lines = (tmp_path / "rows.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    runtime = open_release(made.release)
    with TestClient(create_app(runtime, release_info(made.release, runtime), Serve())) as client:
        native = client.post("/v1/models/tiny/predict", json={"rows": some}).json()["predictions"]
        tensor = {"name": "text", "datatype": "BYTES", "shape": [12]}
        data = [row["text"] for row in some]
        asked = {"inputs": [{**tensor, "data": data}]}
        oip = client.post("/v2/models/tiny/infer", json=asked).json()["outputs"]
    for row, want in enumerate(wanted):
        file = json.loads(lines[row])
        for name, value in want.items():
            assert native[row][name] == pytest.approx(value, abs=1e-6)
            assert file[name] == pytest.approx(value, abs=1e-6)
            output = next(each for each in oip if each["name"] == name)
            assert _of_tensor(output, row, value) == pytest.approx(value, abs=1e-6)


def _of_tensor(output: dict[str, Any], row: int, like: Any) -> Any:
    """A row's value of an output: text, a number, JSON of a list, or numbers by label."""
    if isinstance(like, dict):
        return dict(zip(like, output["data"][row * len(like) :], strict=False))
    value = output["data"][row]
    return json.loads(value) if isinstance(like, list) else value


def test_a_second_run_runs_nothing(made: Made) -> None:
    before = sorted((made.folder / ".modelyard" / "objects").iterdir())
    assert modelyard.run(made.folder).folder == made.release
    assert sorted((made.folder / ".modelyard" / "objects").iterdir()) == before
