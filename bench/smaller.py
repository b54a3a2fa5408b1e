"""A distilled network beside the one it learned from: accuracy kept, and speed."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.figures import Figure, measures, of_runs
from bench.projects import from_sample, modelyard
from modelyard import inputs, targets
from modelyard.core.artefacts import ModelSpec
from modelyard.core.events import silent
from modelyard.inputs import networks
from modelyard.models import smaller
from modelyard.models.evaluation import outputs_of
from modelyard.models.export import export
from modelyard.models.precision import quick
from modelyard.models.quantize import quantize
from modelyard.models.workers import in_turn
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded, of_rows
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import columns_of

SEEDS = (1,)
LAYERS = 3
TURNS = 9
TIMED_ROWS = 256


@dataclass(frozen=True)
class Trained:
    """What a run of a project trained, and its rows."""

    dataset: Path
    model: Path

    @cached_property
    def spec(self) -> ModelSpec:
        """What the model reads and answers."""
        text = (self.model / "model.json").read_text(encoding="utf-8")
        return ModelSpec.model_validate_json(text)

    @cached_property
    def columns(self) -> Columns:
        """What encodes its rows."""
        return columns_of(self.spec, self.model, inputs.find)

    def network(self) -> Any:
        """The network."""
        answer = self.spec.target
        width = targets.find(answer.kind).width(answer.state)
        return networks.load(self.spec.columns, self.model, width)

    def rows(self, part: str) -> tuple[Encoded, list[Any]]:
        """A part's rows, and their truths."""
        table = pq.read_table(self.dataset / f"{part}.parquet")
        own = {name: table[name].to_pylist() for name in self.columns.names}
        return self.columns.encode(own), table[self.spec.target.column].to_pylist()

    def graph(self, network: Any, file: Path) -> Graph:
        """A network as an int8 graph."""
        example, _ = self.rows("validation")
        plain = file.with_suffix(".plain")
        export(network, example.collate([0, 1]), example.ragged, plain)
        quantize(plain, file)
        return Graph(file)

    def accuracy(self, graph: Graph) -> float:
        """The share of test rows that a graph answers rightly."""
        rows, truth = self.rows("test")
        answer = self.spec.target
        outputs = of_rows(graph.outputs(rows), rows)
        said: Any = targets.find(answer.kind).decode(outputs, answer.state)
        right = [a["label"] == b for a, b in zip(said, truth, strict=True)]
        return float(statistics.mean(right))


@measures("distilled")
def distilled() -> list[Figure]:
    """A network of half the layers that learned from the whole one, seed by seed."""
    kept, told = [], []
    faster: list[float] = []
    for seed in SEEDS:
        trained = _trained(from_sample("reviews"), f"train.seed={seed}")
        with tempfile.TemporaryDirectory() as folder:
            teacher = trained.graph(trained.network(), Path(folder) / "teacher.onnx")
            student = trained.graph(
                _student(trained, Path(folder), seed), Path(folder) / "own.onnx"
            )
            accuracies = trained.accuracy(student), trained.accuracy(teacher)
            faster += _ratios(student, teacher, trained.rows("test")[0].first(TIMED_ROWS))
        kept.append(accuracies[0] / accuracies[1])
        told.append(f"{accuracies[0]:.4f} of {accuracies[1]:.4f}")
    rows = trained.rows("test")[0].rows
    said = f"reviews, {LAYERS} of minilm's 6 layers, int8 both, {rows:,} test rows"
    return [
        of_runs("distilled: share of the teacher's accuracy kept", kept, 0.97, ">=", "",
                f"{said}; seeds {SEEDS}: {'; '.join(told)}"),
        of_runs("distilled: rows/s over the teacher's", faster, 1.8, ">=", "×",
                f"{said}, {TIMED_ROWS} of them timed, graphs alone, in turn"),
    ]  # fmt: skip


def _trained(folder: Path, *settings: str) -> Trained:
    words = [word for setting in settings for word in ("--set", setting)]
    shown = json.loads(modelyard("run", str(folder), "--json", *words).splitlines()[-1])
    folders = {stage["stage"]: Path(stage["folder"]) for stage in shown["stages"]}
    return Trained(folders["prepare"], folders["train"])


def _student(trained: Trained, folder: Path, seed: int) -> Any:
    """What learned from the teacher's outputs of the training rows, until it was no better."""
    parts = [trained.rows(part)[0] for part in ("train", "validation")]
    teacher = quick(trained.network())
    training, validation = ((rows, outputs_of(teacher, rows, in_turn)) for rows in parts)
    lesson = smaller.Teaching(
        *training, *validation, "classes", minutes=0, seed=seed, events=silent, kept=folder
    )
    network = trained.network()
    way = next(w for w in smaller.ways(network, {}) if w.name == f"layers-{LAYERS}")
    return way.make(network, lesson)


def _ratios(student: Graph, teacher: Graph, rows: Encoded) -> Sequence[float]:
    """How many times as fast the student is, turn by turn, after a first one."""
    seconds = []
    for _ in range(TURNS + 1):
        for graph in (student, teacher):
            began = time.perf_counter()
            graph.outputs(rows)
            seconds.append(time.perf_counter() - began)
    own, theirs = np.array(seconds[2::2]), np.array(seconds[3::2])
    return list(theirs / own)
