"""The target match through the doors: trained, released, asked, candidates added and removed."""

import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from tests.tiny import BAD, GOOD, OTHER, TINY_TRAINING

import modelyard
from modelyard.cli.main import main
from modelyard.core.errors import (
    ReleaseChanged,
    RowsMissing,
    SettingInvalid,
)
from modelyard.core.events import Decided, Event, Noted, Progress, StageDone
from modelyard.core.project import Serve
from modelyard.doors import open_release, refuse_early, release_info
from modelyard.models import loop
from modelyard.runtime import runtime as runtime_module
from modelyard.runtime.index import unit
from modelyard.service.app import create_app

Row = dict[str, Any]
WORDS = [*GOOD, *BAD]
TRAINING = TINY_TRAINING | {"epochs": 20, "patience": 0, "learning_rate": 2e-3, "batch_rows": 24}


def _candidates() -> list[Row]:
    """Each pair of words as a candidate, each word by a form of its own."""
    return [
        {"id": f"{a}-{b}", "text": f"the {a} and {b} film"}
        for n, a in enumerate(WORDS)
        for b in WORDS[n + 1 :]
    ]


def _rows(count: int) -> list[Row]:
    rng, known, rows = random.Random(0), _candidates(), []
    for number in range(count):
        pair = rng.choice(known)
        words = [*pair["id"].split("-"), *rng.choices(OTHER, k=rng.randint(0, 4))]
        rng.shuffle(words)
        pool = [pair["id"], *(each["id"] for each in rng.sample(known, 8))]
        part = "test" if number < 60 else "validation" if number < 100 else "train"
        question = f"{' '.join(words)} ({number})"
        rows.append({"question": question, "answer": pair["id"], "part": part})
        if part == "test":
            rows[-1]["pool"] = pool
        if number % 2:
            rows[-1]["had"] = [each["id"] for each in rng.sample(known, 5)] + pool[:2]
    return [
        *rows,
        {"question": rows[-1]["question"], "answer": [known[0]["id"]], "part": "train"},
        {"question": "an unknown answer", "answer": "nobody-knows", "part": "train"},
    ]


def _project(folder: Path, backbone: Path, more: str = "") -> Path:
    for name, lines in (("rows", _rows(400)), ("candidates", _candidates())):
        text = "\n".join(map(json.dumps, lines))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    training = "\n".join(f"{name} = {json.dumps(value)}" for name, value in TRAINING.items())
    (folder / "modelyard.toml").write_text(
        'name = "faq"\n[data]\nrows = "rows.jsonl"\nsplit = { given = "part" }\n'
        '[inputs]\nquestion = "text"\n[target]\ncolumn = "answer"\nkind = "match"\n'
        'candidates = "candidates.jsonl"\npool = "pool"\nseen = "had"\n'
        f'[backbone]\ntext = "{backbone}"\n'
        f"[train]\n{training}\n{more}",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def made(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = _project(tmp_path_factory.mktemp("match"), tiny_backbone)
    return folder, modelyard.run(folder).folder


def test_rows_that_ask_the_same_become_one_with_all_candidates(made: tuple[Path, Path]) -> None:
    [dataset] = (made[0] / ".modelyard" / "objects").glob("prepare-*")
    rows = pq.read_table(dataset / "train.parquet").to_pylist()
    several = [row["answer"]["right"] for row in rows if len(row["answer"]["right"]) > 1]
    assert several == [[_rows(400)[399]["answer"], _candidates()[0]["id"]]]
    refused = (dataset / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = {each["kind"]: each["reason"] for each in map(json.loads, refused)}
    assert set(kinds) == {"joined", "wrong target"}
    assert "'nobody-knows', which is not among the candidates" in kinds["wrong target"]


def test_the_report_ranks_within_pools_beside_bm25_and_the_backbone(
    made: tuple[Path, Path],
) -> None:
    report = json.loads((made[1] / "report.json").read_text(encoding="utf-8"))
    own = {each["name"]: each["value"] for each in report["measures"]}
    assert own["recall_at_1"] >= 0.6
    assert own["recall_at_1"] <= own["mrr_at_10"] <= own["recall_at_10"]
    assert [each["name"] for each in report["baselines"]] == [
        *("most frequent candidates", "BM25", "untrained backbone")
    ]
    for baseline in report["baselines"]:
        assert baseline["difference"]["rows"] == 60
    untrained = report["baselines"][2]["measures"][0]
    assert own["recall_at_1"] > untrained["value"]
    assert 7 <= report["ranking"]["pool"] <= 9
    page = (made[1] / "report.html").read_text(encoding="utf-8")
    assert "How far down the right one stands" in page
    [audit] = (made[0] / ".modelyard" / "objects").glob("audit-*")
    for row in pq.read_table(audit / "predictions.parquet").to_pylist():
        truth = json.loads(row["truth"])
        ids = [each["id"] for each in json.loads(row["candidates"])]
        assert set(ids) == set(truth["pool"]) - set(truth["seen"] or ())
        assert set(truth["right"]) <= set(ids)


def test_what_a_row_has_seen_is_no_answer_to_it(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, release = made
    question = {"question": "clever warm story"}
    runtime = modelyard.load(release)
    best, *others = [each["id"] for each in runtime.predict([question])[0]["candidates"]]
    weights = np.load(release / "history.npy")
    assert (
        np.abs(weights - 0.1 * np.eye(len(weights))).max() > 0.01
    )  # it began as that, and learned
    asked = [
        {**question, "had": [best, "no longer for sale"]},
        {**question, "had": None},
        {**question, "had": []},
    ]
    held = [{**question, "had": kind([best])} for kind in (tuple, set, np.array)]
    for row in runtime.predict(held):
        assert best not in [each["id"] for each in row["candidates"]]
    found = [[each["id"] for each in row["candidates"]] for row in runtime.predict(asked)]
    assert best not in found[0] and len(found[0]) == 10
    scores = [[c["score"] for c in row["candidates"]] for row in runtime.predict(asked)]
    assert scores[0][:9] != scores[1][1:]  # what has been seen moves the others as well
    assert found[1] == found[2] == [best, *others]
    (tmp_path / "rows.csv").write_text(
        f"question,had\nclever warm story,{best}\n", encoding="utf-8"
    )
    assert main(["predict", str(release), str(tmp_path / "rows.csv")]) == 0
    written = (tmp_path / "rows.predictions.csv").read_text(encoding="utf-8")
    assert f'{{""id"": ""{found[0][0]}""' in written
    lines = [{**question, "had": [{}]}, {**question, "had": "[]"}]
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert main(["predict", str(release), str(tmp_path / "bad.jsonl")]) in (0, 1)
    told = (tmp_path / "bad.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    bad, none = map(json.loads, told)
    assert "column 'had'" in bad["error"] and bad["candidates"] is None
    assert none["candidates"][0]["id"] == best
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        reply = client.post("/v1/models/faq/predict", json={"rows": asked}).json()
        told = [[each["id"] for each in row["candidates"]] for row in reply["predictions"]]
        refused = client.post("/v1/models/faq/predict", json={"rows": [{**question, "had": [{}]}]})
        tensors = [_bytes("question", [row["question"] for row in asked]),
                   _bytes("had", [json.dumps([best]), None, ""])]  # fmt: skip
        reply = client.post("/v2/models/faq/infer", json={"inputs": tensors}).json()
        by_tensor = [[c["id"] for c in json.loads(row)] for row in reply["outputs"][0]["data"]]
        taken = client.get("/v2/models/faq").json()["inputs"]
        twice = client.post("/v2/models/faq/infer", json={"inputs": [tensors[0], *tensors]})
    assert told == by_tensor == found
    assert [(each["name"], each.get("parameters")) for each in taken] == [
        ("question", None),
        ("had", {"optional": True}),
    ]
    assert twice.status_code == 400 and "and maybe ['had'], each once" in twice.json()["error"]
    assert refused.status_code == 422 and "column 'had'" in refused.json()["detail"]


@pytest.mark.parametrize(("batch_rows", "pairs"), [(4, True), (24, False)])
def test_rows_stand_beside_all_candidates_only_where_that_costs_less_than_pairs(
    tiny_backbone: Path, tmp_path: Path, batch_rows: int, pairs: bool
) -> None:
    project = _project(tmp_path, tiny_backbone)
    events: list[Event] = []
    settings = [f"train.batch_rows={batch_rows}", "train.epochs=1"]
    release = modelyard.run(project, settings, events.append).folder
    decided = {event.what for event in events if isinstance(event, Decided)}
    assert ("pairs" in decided, "candidates" in decided) == (pairs, not pairs)
    assert (release / "history.npy").exists() is not pairs


@pytest.mark.parametrize("batch_rows", [4, 24])
def test_low_rank_matrices_and_no_validation_rows(
    tiny_backbone: Path, tmp_path: Path, batch_rows: int
) -> None:
    project = _project(tmp_path, tiny_backbone)
    rows = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    rows = rows.replace('"part": "validation"', '"part": "train"')
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    settings = ["train.method=lora", f"train.batch_rows={batch_rows}", "train.epochs=2"]
    release = modelyard.run(project, settings).folder
    assert modelyard.load(release).predict([{"question": "clever warm story"}])


def test_a_column_that_goes_in_and_is_seen_is_one_column(made: tuple[Path, Path]) -> None:
    runtime = modelyard.load(made[1])
    state = {**runtime.spec.target.state, "seen": "question"}
    target = runtime.spec.target.model_copy(update={"state": state})
    other = replace(runtime, spec=runtime.spec.model_copy(update={"target": target}))
    assert [each.name for each in release_info(made[1], other).columns] == ["question"]


def _bytes(name: str, values: list[Any]) -> Row:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}


def test_what_rows_have_seen_is_read_beside_the_service_loop(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_by: list[str] = []
    plain = runtime_module.names_in

    def read_in(value: Any) -> list[str]:
        read_by.append(threading.current_thread().name)
        return plain(value)

    monkeypatch.setattr(runtime_module, "names_in", read_in)
    runtime = modelyard.load(made[1])
    rows = [{"question": "clever warm story", "had": ["fine-dull"]}]
    with TestClient(create_app(runtime, release_info(made[1], runtime), Serve())) as client:
        assert client.post("/v1/models/faq/predict", json={"rows": rows}).status_code == 200
    assert [name.partition("_")[0] for name in read_by] == ["encode"]


def test_a_release_has_its_index_and_tells_nothing_of_its_rows(made: tuple[Path, Path]) -> None:
    names = {path.name for path in made[1].iterdir()}
    assert {"index.npy", "candidates.jsonl", "graph.onnx"} <= names
    assert not {"seen.npy", "untrained.npy"} & names
    assert 'AutoModel.from_pretrained("FOLDER")' in (made[1] / "README.md").read_text("utf-8")


def test_the_same_vectors_come_from_transformers(made: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    text = "the fine and dull film"
    runtime = modelyard.load(made[1])
    tokens = AutoTokenizer.from_pretrained(made[1])([text], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(made[1])(**tokens).last_hidden_state
    theirs = unit(states.mean(1).numpy())
    assert float((theirs * runtime.vectors([text])).sum()) > 0.99  # 8 bits against 32


def test_candidates_are_added_and_removed_without_training(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, release = made
    question = {"question": "clever warm story"}
    first = modelyard.load(release).predict([question])[0]["candidates"][0]
    (tmp_path / "add.jsonl").write_text(
        json.dumps({"id": "new", "text": question["question"]}), encoding="utf-8"
    )
    (tmp_path / "remove.csv").write_text(f"id\n{first['id']}\n", encoding="utf-8")
    out = tmp_path / "more"
    words = ["candidates", str(release), "--add", str(tmp_path / "add.jsonl")]
    assert main([*words, "--remove", str(tmp_path / "remove.csv"), "--out", str(out)]) == 0
    assert f"{len(_candidates()):,} candidates" in capsys.readouterr().out
    runtime = modelyard.load(release, candidates=out)
    found = runtime.predict([question])[0]["candidates"]
    assert found[0] == {
        "id": "new",
        "text": question["question"],
        "score": pytest.approx(1, abs=1e-3),
    }
    assert first["id"] not in [each["id"] for each in found]
    assert main([*words, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        reply = client.post("/v1/models/faq/predict", json={"rows": [question]}).json()
        asked = {"inputs": [{"name": "question", "datatype": "BYTES", "shape": [1],
                             "data": [question["question"]]}]}  # fmt: skip
        [tensor] = client.post("/v2/models/faq/infer", json=asked).json()["outputs"]
    assert reply["predictions"][0]["candidates"][0]["id"] == "new"
    assert json.loads(tensor["data"][0])[0]["id"] == "new"


def test_candidates_that_were_changed_or_are_anothers_are_refused(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "same"
    assert main(["candidates", str(made[1]), "--out", str(out)]) == 0
    assert open_release(made[1], candidates=out).index is not None
    lines = (out / "candidates.jsonl").read_text(encoding="utf-8")
    (out / "candidates.jsonl").write_text(lines.replace("film", "flim"), encoding="utf-8")
    with pytest.raises(ReleaseChanged, match=r"candidates\.jsonl"):
        open_release(made[1], candidates=out)
    with pytest.raises(SettingInvalid, match="holds no candidates of the release"):
        open_release(made[1], candidates=made[1])


def test_a_training_that_was_stopped_ends_as_an_unbroken_one(
    made: tuple[Path, Path], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = _project(tmp_path, tiny_backbone), []

    def stops(run: loop.Run) -> None:
        plain(run)
        raise KeyboardInterrupt

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, StageDone) and event.stage == "train":
            raise KeyboardInterrupt

    plain = loop.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(loop, "save", stops)
        modelyard.run(folder)
    with pytest.raises(KeyboardInterrupt):
        modelyard.run(folder, events=tell)
    assert any(isinstance(e, Noted) and "goes on from step 1" in e.text for e in told)
    assert not any(isinstance(e, Progress) and e.what == "looking at the candidates" for e in told)
    first, again = ((f / ".modelyard" / "objects").glob("train-*") for f in (made[0], folder))
    assert [path.name for path in first] == [path.name for path in again]


def test_what_cannot_be_is_refused_early(tiny_backbone: Path, tmp_path: Path) -> None:
    from modelyard.core.project_file import read_project

    file = _project(tmp_path, tiny_backbone) / "modelyard.toml"
    with pytest.raises(SettingInvalid, match=r'train\.method = "head"'):
        refuse_early(read_project(file, ['train.method="head"']))
    with pytest.raises(RowsMissing, match=r"no\.jsonl; check target\.candidates"):
        modelyard.run(file, ['target.candidates="no.jsonl"'])
