"""Models for compress, made in the test: untrained, with rows on which they make no mistake."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.tiny import make_rows

from modelyard import inputs, targets
from modelyard.core.artefacts import ColumnState, Dataset, Model, ModelSpec
from modelyard.core.events import Event
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.store import Draft
from modelyard.models.export import network_outputs
from modelyard.stages.compress import compress

LABELS = ["bad", "good"]
TEXTS = [row["text"] for row in make_rows(60, seed=3)]
RATES = {"fp32": 100.0, "bf16": 100.0, "int8": 300.0, "int8-calibrated": 250.0}
"""Of others the longer the name the quicker, and 2 layers are quicker than 3."""
WINDOW = {"window_tokens": 32, "windows": 2, "pad_id": 0}


@dataclass(frozen=True)
class Made:
    """What the stage made."""

    folder: Path
    events: list[Event]
    record: dict[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "compress.json").read_text())
        return told

    @property
    def rungs(self) -> list[str]:
        return [each["name"] for each in self.told["rungs"]]


def lively(network: Any) -> Any:
    """The network with weights larger than at the start of training, so that answers differ."""
    for weight in network.parameters():
        weight.data.mul_(4 if weight.ndim == 2 else 1)
    return network


def untrained(folder: Path, backbone: Path) -> Model:
    """A Model of texts whose answers differ, though it has learned nothing."""
    import torch

    text = inputs.find("text")
    torch.manual_seed(2)
    network = lively(text.network([], backbone, 2, 0.0))
    state = {"labels": LABELS, "counts": [1, 1]}
    network.config.update(targets.find("class").config(state))
    encoded = text.encoder(WINDOW, backbone)(TEXTS)
    middle = np.median(network_outputs(network, encoded), axis=0)
    network.classifier.bias.data.sub_(torch.from_numpy(middle))
    text.save(network, [WINDOW], backbone, folder)
    spec = ModelSpec(
        name="tiny",
        version="1",
        inputs=[ColumnState(column="text", kind="text", state=WINDOW)],
        target=ColumnState(column="label", kind="class", state=state),
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    np.save(folder / "seen.npy", np.zeros(1, np.uint64))
    return Model(folder)


def right_rows(folder: Path, model: Model) -> Dataset:
    """Rows whose labels are what the network says, so that it makes no mistake."""
    encoded = inputs.find("text").encoder(WINDOW, model.folder)(TEXTS)
    network = inputs.find("text").network([], model.folder, 2, 0.0)
    said = np.stack(network_outputs(network, encoded)).argmax(axis=1)
    assert 5 < said.sum() < 55
    rows = [{"text": text, "label": LABELS[n]} for text, n in zip(TEXTS, said, strict=True)]
    for part in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet")
    return Dataset(folder)


def made(
    folder: Path, model: Model, dataset: Dataset, accept: dict[str, str] | None = None, **own: Any
) -> Made:
    """What compress makes with these options, in a folder that may have been begun."""
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    draft = Draft(folder / "out", folder / "kept", {})
    project = Project.model_validate(
        {
            "name": "tiny",
            "data": {"rows": "rows.csv"},
            "inputs": {"text": "text"},
            "target": {"column": "label"},
            "accept": accept or {},
            "compress": own,
        }
    )
    events: list[Event] = []
    compress.run(project=project, dataset=dataset, model=model, draft=draft, events=events.append)
    return Made(draft.out, events, draft.record)


def rate_of(name: str, rates: Mapping[str, float] = RATES) -> Measure:
    value = rates.get(name, 100.0 * len(name) + 50 * ("layers-2" in name))
    return Measure("rows_per_s", value, value, value, 9)
