"""Training: the model it leaves, the same weights each time, resuming, the time budget."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import make_dataset

from modelyard.core.artefacts import Dataset, Model
from modelyard.core.project import Project
from modelyard.core.store import Draft
from modelyard.stages.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(make_dataset(tmp_path_factory.mktemp("dataset")))


def project(backbone: Path, **options: Any) -> Project:
    settings = {"epochs": 6, "learning_rate": 3e-3, "batch_rows": 8, **options}
    return Project.model_validate(
        {
            "name": "tiny",
            "data": {"rows": "rows.csv"},
            "inputs": {"text": "text"},
            "target": {"column": "label"},
            "backbone": {"text": str(backbone)},
            "train": settings,
        }
    )


def trained(folder: Path, dataset: Dataset, wanted: Project) -> Model:
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True)
    draft = Draft(folder / "out", folder / "kept", {})
    train.run(project=wanted, dataset=dataset, draft=draft, events=lambda event: None)
    return Model(folder / "out")


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_method_learns_and_leaves_a_transformers_model(
    method: str, tmp_path: Path, dataset: Dataset, tiny_backbone: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = trained(tmp_path, dataset, project(tiny_backbone, method=method))
    training = model.read_json("training.json")
    assert training["epochs"][-1]["loss"] < training["epochs"][0]["loss"]
    loaded, said = AutoModelForSequenceClassification.from_pretrained(
        model.folder, output_loading_info=True
    )
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    assert not said["missing_keys"] and not said["unexpected_keys"]
    assert model.spec.inputs[0].column == "text"
    assert len(np.load(model.folder / "seen.npy")) > 0
    assert json.loads((model.folder / "config.json").read_text())["problem_type"]
