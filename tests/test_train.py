"""Training: the model it leaves, the same weights each time, resuming after a kill, the budget."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.tiny import make_dataset, project_on

from modelyard import targets
from modelyard.core import digest
from modelyard.core.artefacts import Dataset, Model
from modelyard.core.errors import PairImpossible
from modelyard.core.events import Event, Noted, Progress
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.stages import RowFacts
from modelyard.core.store import Draft
from modelyard.models import checkpoint, loop
from modelyard.models.evaluation import Evaluation
from modelyard.models.schedule import Pace
from modelyard.stages.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(make_dataset(tmp_path_factory.mktemp("dataset")))


def trained(
    folder: Path, dataset: Dataset, wanted: Project, told: list[Event] | None = None
) -> Model:
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    draft = Draft(folder / "out", folder / "kept", {})
    events = told.append if told is not None else lambda event: None
    train.run(project=wanted, dataset=dataset, draft=draft, events=events)
    return Model(folder / "out")


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_method_learns_and_leaves_a_transformers_model(
    method: str, tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = trained(tmp_path, dataset, project_on(tiny_backbone, method=method))
    training = model.read_json("training.json")
    assert training["epochs"][-1]["loss"] < training["epochs"][0]["loss"]
    assert training["decisions"]["method"]["method"] == method
    loaded, said = AutoModelForSequenceClassification.from_pretrained(
        model.folder, output_loading_info=True
    )
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    assert not said["missing_keys"] and not said["unexpected_keys"]
    assert model.spec.inputs[0].column == "text" and model.spec.target.kind == "class"
    config = json.loads((model.folder / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"
    assert str(tiny_backbone) not in json.dumps(config)


def test_full_training_learns_the_words(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    told: list[Event] = []
    model = trained(tmp_path, dataset, project_on(tiny_backbone), told)
    training = model.read_json("training.json")
    assert max(epoch["accuracy"] for epoch in training["epochs"]) > 0.9
    assert all(epoch["padding"] < 0.05 for epoch in training["epochs"])
    first = next(event for event in told if isinstance(event, Progress))
    assert first.what == "train" and first.total == 6 * 12
    assert {"loss", "rows_per_s"} <= set(first.figures)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
@pytest.mark.parametrize("backward", ["all", "sampled"])
def test_every_method_learns_in_bf16_too(
    method: str, backward: str, tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    options = {"precision": "bf16", "method": method, "backward": backward, "epochs": 2}
    model = trained(tmp_path, dataset, project_on(tiny_backbone, **options))
    training = model.read_json("training.json")
    assert training["decisions"]["precision"]["precision"] == "bf16"
    first, last = (epoch["loss"] for epoch in training["epochs"])
    assert last < first


def test_a_processor_with_bf16_tries_it_and_says_what_it_saw(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.models import precision

    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    wanted = project_on(tiny_backbone, precision="auto", epochs=1)
    decided = trained(tmp_path, dataset, wanted).read_json("training.json")["decisions"]
    assert set(decided["precision"]["losses"]) == {"fp32", "bf16"}
    assert decided["precision"]["precision"] in decided["precision"]["losses"]


@pytest.mark.parametrize("method", ["full", "head"])
def test_without_validation_rows_nothing_is_tried_and_the_last_weights_are_kept(
    method: str, tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.models import precision

    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    dataset = Dataset(make_dataset(tmp_path / "dataset"))
    validation = dataset.part("validation")
    pq.write_table(pq.read_table(validation).slice(0, 0), validation)
    wanted = project_on(tiny_backbone, precision="auto", method=method, epochs=1)
    training = trained(tmp_path, dataset, wanted).read_json("training.json")
    assert training["decisions"]["precision"]["precision"] == "fp32"
    assert training["steps"] > 0


def test_few_rows_are_passed_over_more_often(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    wanted = project_on(tiny_backbone, epochs=None, patience=0, batch_rows=2)
    training = trained(tmp_path, dataset, wanted).read_json("training.json")
    assert len(training["epochs"]) == training["decisions"]["epochs"]["epochs"] > 2


def test_seen_holds_training_and_validation_rows_only(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    model = trained(tmp_path, dataset, project_on(tiny_backbone, epochs=1))
    seen = np.load(model.folder / "seen.npy")
    assert seen.dtype == np.uint64
    for part, wanted in (("train", True), ("validation", True), ("test", False)):
        texts = pq.read_table(dataset.part(part))["text"].to_pylist()
        digests = np.array([digest.row_digest([text]) for text in texts], dtype=np.uint64)
        assert bool(np.isin(digests, seen).all()) is wanted


def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    first, again, other = (
        digest.of_folder(
            trained(tmp_path / name, dataset, project_on(tiny_backbone, epochs=1, seed=seed)).folder
        )
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first["model.safetensors"] != other["model.safetensors"]


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path, tiny_backbone: Path) -> None:
    make_dataset(tmp_path / "dataset")
    script = Path(__file__).with_name("kill_training.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, tiny_backbone], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= 3 and report["resumed"] >= 2
    assert report["files"] == report["unbroken"]


def test_a_torn_checkpoint_is_as_none(tmp_path: Path) -> None:
    import torch

    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, {"a": torch.ones(3)}, {"steps": 7})
    tensors, facts = checkpoint.load(tmp_path) or ({}, {})
    assert facts == {"steps": 7} and tensors["a"].tolist() == [1, 1, 1]
    whole = (tmp_path / checkpoint.NAME).read_bytes()
    (tmp_path / checkpoint.NAME).write_bytes(whole[:-2])
    assert checkpoint.load(tmp_path) is None


def judged_by(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Let the epochs' accuracies be these, each with a standard error of 0.05."""
    scores = iter(accuracies)

    def told(*_: object) -> Evaluation:
        value = next(scores)
        return Evaluation(0.5, [Measure("accuracy", value, value - 0.098, value + 0.098, 64)])

    monkeypatch.setattr("modelyard.models.loop.evaluate", told)


def test_patience_stops_what_is_clearly_worse_and_the_best_weights_are_kept(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(monkeypatch, 0.8, 0.9, 0.84, 0.86, 0.84, 0.7, *[0.9] * 24)
    wanted = project_on(tiny_backbone, epochs=30, patience=2)
    training = trained(tmp_path, dataset, wanted).read_json("training.json")
    assert (len(training["epochs"]), training["kept_epoch"]) == (6, 2)


@pytest.mark.parametrize("step_seconds", [0.02, 0.7])
def test_a_budget_is_kept_within_a_tenth(step_seconds: float) -> None:
    now = 100.0
    pace = Pace(0, 60.0, saving=0.5, clock=lambda: now, began=now)
    now += 8  # loading
    pace.reserve = 4.0
    steps, rng = 0, np.random.default_rng(0)
    while pace.progress(steps) < 1:
        now += step_seconds * rng.uniform(0.5, 4)
        steps += 1
    now += pace.reserve + pace.saving
    assert 54 <= now - 100 <= 66


def test_a_budget_ends_training_and_the_rate_has_come_down(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    plain = loop.rate
    monkeypatch.setattr(loop, "rate", lambda p, warmup: rates.append(plain(p, warmup)) or rates[-1])
    wanted = project_on(tiny_backbone, minutes=0.02, epochs=1)
    training = trained(tmp_path, dataset, wanted).read_json("training.json")
    assert training["steps"] == len(rates) >= 1
    assert rates[-1] <= max(rates)


def test_a_resumed_training_says_so(
    tmp_path: Path, dataset: Dataset, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
    whole = trained(tmp_path, dataset, project_on(tiny_backbone, epochs=2))
    told: list[Event] = []
    again = trained(tmp_path, dataset, project_on(tiny_backbone, epochs=2), told)
    assert any(isinstance(event, Noted) and "goes on" in event.text for event in told)
    assert digest.of_folder(whole.folder) == digest.of_folder(again.folder)


def test_what_is_told_by_tokens_takes_one_text_alone() -> None:
    target: Any = SimpleNamespace(kind="spans", reads="tokens")
    targets.refuse_pair(target, {"text": True})
    for columns in ({"age": False}, {"text": True, "age": False}, {"a": True, "b": True}):
        with pytest.raises(PairImpossible, match=", ".join(columns)):
            targets.refuse_pair(target, columns)


def test_the_estimate_grows_with_rows_and_follows_the_budget(tiny_backbone: Path) -> None:
    facts = RowFacts(rows=10_000, mean_characters=100.0)
    few, many = (
        train.estimate(project_on("minilm"), RowFacts(rows, 100.0)) for rows in (1_000, 100_000)
    )
    assert few.seconds < many.seconds and many.memory_bytes < 4_000_000_000
    assert train.estimate(project_on(tiny_backbone, minutes=5), facts).seconds == pytest.approx(310)


def test_the_estimate_counts_candidates_and_the_layers_that_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelyard.stages.train._operations_per_s", lambda: 1e9)

    def seconds(candidates: float = 0.0, **told: Any) -> float:
        facts = RowFacts(10_000, 100.0, candidate_characters=candidates)
        given = project_on("minilm").model_dump() | told
        return train.estimate(Project.model_validate(given), facts).seconds - 10

    match = {"target": {"column": "answer", "kind": "match"}}
    assert seconds(100.0, **match) == pytest.approx(3 * seconds(100.0))
    assert seconds(400.0, **match) > 2 * seconds(100.0, **match)
    cut = {"inputs": {"text": {"kind": "text", "layers": 2}}}
    assert seconds(**cut) == pytest.approx(seconds() / 3)
    assert seconds(100.0, **cut, **match) == pytest.approx(seconds(100.0, **match) / 3)


@pytest.mark.parametrize(("behind", "kept"), [(0.04, 3), (0.06, 1)])
def test_the_last_weights_are_kept_unless_others_were_clearly_better(
    tmp_path: Path,
    dataset: Dataset,
    tiny_backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
    behind: float,
    kept: int,
) -> None:
    judged_by(monkeypatch, 0.8, 0.75, 0.8 - behind)
    wanted = project_on(tiny_backbone, epochs=3, patience=0, precision="fp32")
    assert trained(tmp_path, dataset, wanted).read_json("training.json")["kept_epoch"] == kept
