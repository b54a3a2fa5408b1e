"""Every input with every target: trained, audited, served, and the same answers everywhere."""

import base64
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from tests.tiny import BAD, GOOD, OTHER, TINY_TRAINING

import modelyard
from modelyard import inputs, targets
from modelyard.cli.main import main
from modelyard.core.events import Event, Noted, StageDone
from modelyard.core.project import Serve
from modelyard.doors import open_release, release_info
from modelyard.models import loop
from modelyard.runtime import pixels
from modelyard.service.app import create_app

Row = dict[str, Any]
ROWS = 400
TRAINING = TINY_TRAINING | {"epochs": 15, "patience": 0, "learning_rate": 2e-3}


@dataclass(frozen=True)
class Kind:
    """What a row's target is when its words are these, and the least a trained model reaches.

    Of an error the least is the most with a minus.
    """

    truth: Callable[[list[str]], Any]
    least: float


def _spans(words: list[str]) -> list[Row]:
    """Each word that has a tone, where it stands in the text they make."""
    found, start = [], 0
    for word in words:
        end = start + len(word)
        if word in (*GOOD, *BAD):
            label = "good" if word in GOOD else "bad"
            found.append({"start": start, "end": end, "label": label})
        start = end + 1
    return found


def _tone(words: list[str]) -> str:
    return GOOD[0] if set(words) & set(GOOD) else BAD[0]


def _number(words: list[str]) -> float:
    """Mostly by the tone of a row's words, a little by how many there are."""
    return (1.5 if set(words) & set(GOOD) else -1.5) + 0.1 * len(words)


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
    "number": Kind(_number, -0.5),
    "spans": Kind(_spans, 0.9),
    "match": Kind(lambda words: f"{_tone(words)} music" if "music" in words else _tone(words), 0.8),
}


@dataclass(frozen=True)
class Columns:
    """Input columns: their kinds, and a row's values when its words are these."""

    kinds: dict[str, str]
    values: Callable[[list[str]], Row]
    table: str = "network"


def _text(words: list[str]) -> Row:
    return {"text": " ".join(words)}


def _numbers(words: list[str]) -> Row:
    found = {"good_words": GOOD, "bad_words": BAD, "music_words": ["music"], "words": words}
    return {name: sum(word in own for word in words) for name, own in found.items()}


def _categories(words: list[str]) -> Row:
    tone = next(word for word in words if word in (*GOOD, *BAD))
    return {"tone": tone, "topic": "music" if "music" in words else words[-1]}


def _image(words: list[str]) -> Row:
    return {"photo": _picture(words, 0)}


def _picture(words: list[str], number: int) -> str:
    """A picture of noise with a bright corner for each kind of word in the row."""
    noise = np.random.default_rng(number)
    grey = noise.integers(0, 120, (16, 16), dtype=np.uint8)
    corners = ((GOOD, grey[:6, :6]), (BAD, grey[:6, 10:]), (["music"], grey[10:, 3:13]))
    for own, corner in corners:
        corner[:] = 255 if set(words) & set(own) else corner
    return base64.b64encode(pixels.encoded(grey)).decode()


def _table(words: list[str]) -> Row:
    return {**_numbers(words), **_categories(words)}


def _some_missing(words: list[str]) -> Row:
    """Everything, but that a third of the rows lacks each column."""
    found = {**_text(words), **_numbers(words), **_categories(words), **_image(words)}
    lacks = sum(map(len, words)) % 3
    return {name: None if n % 3 == lacks else v for n, (name, v) in enumerate(found.items())}


OF_NUMBERS = dict.fromkeys(_numbers([]), "number")
OF_CATEGORIES = {"tone": "category", "topic": "category"}
INPUTS = {
    "text": Columns({"text": "text"}, _text),
    "image": Columns({"photo": "image"}, _image),
    "number": Columns(OF_NUMBERS, _numbers),
    "category": Columns(OF_CATEGORIES, _categories),
    "several": Columns(
        {"text": "text", **OF_NUMBERS, **OF_CATEGORIES, "photo": "image"}, _some_missing
    ),
    "trees": Columns({**OF_NUMBERS, **OF_CATEGORIES}, _table, "trees"),
}
IMPOSSIBLE = [(source, "spans") for source in INPUTS if source != "text"]
IMPOSSIBLE += [("trees", "match")]
PAIRS = [
    (source, target)
    for source in INPUTS
    for target in TARGETS
    if (source, target) not in IMPOSSIBLE
]


def test_every_kind_has_its_row() -> None:
    assert set(TARGETS) == set(targets.MODULES)
    assert {kind for each in INPUTS.values() for kind in each.kinds.values()} == set(inputs.KINDS)


def _rows(columns: Columns, kind: Kind) -> list[Row]:
    rng, rows = random.Random(0), []
    for number in range(ROWS):
        words = rng.choices(OTHER, k=rng.randint(1, 8)) + rng.choices((GOOD, BAD)[number % 2], k=2)
        rng.shuffle(words)
        rows.append({**columns.values(words), "answer": kind.truth(words), "number": number})
        if rows[-1].get("text"):
            rows[-1]["text"] += f" ({number})"
        if rows[-1].get("photo"):
            rows[-1]["photo"] = _picture(words, number)
    return rows


@dataclass(frozen=True)
class Made:
    """A project that has been run."""

    folder: Path
    release: Path
    rows: list[Row]
    columns: Columns
    least: float


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def made(
    request: pytest.FixtureRequest,
    tiny_backbone: Path,
    tiny_image_backbone: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    source, target = request.param
    columns, kind = INPUTS[source], TARGETS[target]
    folder, rows = tmp_path_factory.mktemp(f"{source}-{target}"), _rows(columns, kind)
    lines = [json.dumps(row) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    training = "\n".join(f"{name} = {json.dumps(value)}" for name, value in TRAINING.items())
    named = "\n".join(f'{name} = "{kind}"' for name, kind in columns.kinds.items())
    (folder / "modelyard.toml").write_text(
        f'name = "tiny"\n[data]\nrows = "rows.jsonl"\nsplit = {{ test = 0.25 }}\n'
        f'[inputs]\n{named}\n[target]\ncolumn = "answer"\nkind = "{target}"\n'
        f'[backbone]\ntext = "{tiny_backbone}"\nimage = "{tiny_image_backbone}"\n'
        f'table = "{columns.table}"\n[train]\n{training}\n',
        encoding="utf-8",
    )
    return Made(folder, modelyard.run(folder).folder, rows, columns, kind.least)


def test_it_learns_what_can_be_learned_and_is_ahead_of_a_constant(made: Made) -> None:
    report = json.loads((made.release / "report.json").read_text(encoding="utf-8"))
    main_measure = next(each for each in report["measures"] if each["name"] == report["main"])
    sign = 1 if main_measure["higher_is_better"] else -1
    assert sign * main_measure["value"] >= made.least
    assert main_measure["low"] <= main_measure["value"] <= main_measure["high"]
    for baseline in report["baselines"]:
        assert baseline["difference"]["rows"] == 100


def assert_alike(found: Any, wanted: Any) -> None:
    """The same, but for rounding, however it is nested."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list):
        for mine, theirs in zip(found, wanted, strict=True):
            assert_alike(mine, theirs)
    else:
        assert found == pytest.approx(wanted, abs=1e-6)


def test_the_audits_answers_are_those_of_python(made: Made) -> None:
    [audit] = (made.folder / ".modelyard" / "objects").glob("audit-*")
    told = pq.read_table(audit / "predictions.parquet").to_pylist()
    runtime = modelyard.load(made.release)
    for row, answer in zip(
        told, runtime.predict([made.rows[r["_row"] - 1] for r in told]), strict=True
    ):
        for name, value in answer.items():
            known = json.loads(row[name]) if isinstance(value, dict | list) else row[name]
            assert_alike(known, value)


def test_http_and_files_answer_as_python_does(made: Made, tmp_path: Path) -> None:
    some = [{name: row[name] for name in made.columns.kinds} for row in made.rows[:12]]
    wanted = modelyard.load(made.release).predict(some)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    assert main(["predict", str(made.release), str(tmp_path / "rows.jsonl")]) == 0
    lines = (tmp_path / "rows.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    runtime = open_release(made.release)
    with TestClient(create_app(runtime, release_info(made.release, runtime), Serve())) as client:
        native = client.post("/v1/models/tiny/predict", json={"rows": some}).json()["predictions"]
        asked = {"inputs": [_tensor(each, some) for each in _described(client)]}
        oip = client.post("/v2/models/tiny/infer", json=asked).json()["outputs"]
    for row, want in enumerate(wanted):
        file = json.loads(lines[row])
        for name, value in want.items():
            output = next(each for each in oip if each["name"] == name)
            for found in (native[row][name], file[name], _of_tensor(output, row, value)):
                assert_alike(found, value)


def _described(client: TestClient) -> list[Row]:
    described: list[Row] = client.get("/v2/models/tiny").json()["inputs"]
    return described


def _tensor(described: Row, rows: list[Row]) -> Row:
    """A column as a tensor; there a text that is missing is empty."""
    values = [row[described["name"]] for row in rows]
    if described["datatype"] == "BYTES":
        values = ["" if value is None else value for value in values]
    return {**described, "shape": [len(rows)], "data": values}


def _of_tensor(output: dict[str, Any], row: int, like: Any) -> Any:
    """A row's value of an output: text, a number, JSON of a list, or numbers by label."""
    if isinstance(like, dict):
        return dict(zip(like, output["data"][row * len(like) :], strict=False))
    value = output["data"][row]
    return json.loads(value) if isinstance(like, list) else value


def _stopped_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a project until its training has saved for the first time; trees never do."""

    def stops(run: loop.Run) -> None:
        plain(run)
        raise KeyboardInterrupt

    plain = loop.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(loop, "save", stops)
        modelyard.run(folder, events=_until_trained)


def _until_trained(event: Event) -> None:
    if isinstance(event, StageDone) and event.stage == "train":
        raise KeyboardInterrupt


def test_a_training_that_was_stopped_ends_as_an_unbroken_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        _until_trained(event)

    for name in ("rows.jsonl", "modelyard.toml"):
        shutil.copyfile(made.folder / name, tmp_path / name)
    _stopped_once(tmp_path, monkeypatch)
    if made.columns.table == "network":
        with pytest.raises(KeyboardInterrupt):
            modelyard.run(tmp_path, events=tell)
        assert any(isinstance(e, Noted) and "goes on from step 1" in e.text for e in told)
    whole, again = ((f / ".modelyard" / "objects").glob("train-*") for f in (made.folder, tmp_path))
    assert [path.name for path in whole] == [path.name for path in again]


def test_a_second_run_runs_nothing(made: Made) -> None:
    before = sorted((made.folder / ".modelyard" / "objects").iterdir())
    assert modelyard.run(made.folder).folder == made.release
    assert sorted((made.folder / ".modelyard" / "objects").iterdir()) == before
