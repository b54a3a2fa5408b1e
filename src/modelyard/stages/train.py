"""Train: a dataset and a backbone in, a model in Hugging Face form out."""

import json
import math
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from modelyard import inputs, targets
from modelyard.core import digest
from modelyard.core.artefacts import ColumnState, Dataset, Model, ModelSpec
from modelyard.core.errors import PairImpossible
from modelyard.core.events import Decided, Events
from modelyard.core.project import Project
from modelyard.core.stages import GIGA, Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.models import backbones
from modelyard.models.backbones import Backbone
from modelyard.models.schedule import epochs_for
from modelyard.runtime.encoded import Encoded

MEASURING_SECONDS = 0.05
START_SECONDS = 10.0  # imports, loading, saving
TOKENS_PER_CHARACTER = 0.25
MOST_TOKENS = 512
STEP_TOKENS = 4096
EPOCH_IN_FORWARDS = 3.2  # forward, a backward pass, evaluation
USED_SHARE = 0.6  # of the speed of plain matrix products

if TYPE_CHECKING:
    from modelyard.models.evaluation import Task
    from modelyard.models.loop import State


@dataclass(frozen=True)
class Column:
    """A column of training and validation rows, and what was learned of it in training rows."""

    name: str
    kind: str
    state: dict[str, Any]
    training: Sequence[Any]
    validation: Sequence[Any]

    def spec(self) -> ColumnState:
        """The column as model.json has it."""
        return ColumnState(column=self.name, kind=self.kind, state=self.state)


def causes(project: Project) -> Mapping[str, str]:
    """The digest of the backbone, without fetching it."""
    return {"backbone": backbones.cause(_backbone_name(project), project.folder)}


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Seconds, memory and disk, from the backbone's size and this machine's speed."""
    size = backbones.size(_backbone_name(project), project.folder)
    options = project.train
    rows = facts.rows * (1 - project.data.split.test - project.data.split.validation)
    tokens = rows * min(MOST_TOKENS, 2 + facts.mean_characters * TOKENS_PER_CHARACTER)
    forward = 2 * size.body * tokens
    epochs = options.epochs or epochs_for(max(1, math.ceil(rows / options.batch_rows)))
    passes = {"head": 1.0}.get(options.method, EPOCH_IN_FORWARDS * epochs)
    computing = passes * forward / (_operations_per_s() * USED_SHARE)
    weights = size.parameters * 4
    return Estimate(
        seconds=START_SECONDS + (options.minutes * 60 or computing),
        memory_bytes=int(
            0.6 * GIGA + 5 * weights + 2 * STEP_TOKENS * size.layers * size.width * 80
        ),
        disk_bytes=weights * 9,  # the model, and two checkpoints while one replaces the other
    )


def _operations_per_s() -> float:
    """Floating-point operations a second in matrix products, measured in a blink."""
    square = np.ones((512, 512), dtype=np.float32)
    square @ square  # the first one starts the threads
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURING_SECONDS:
        square @ square
        products += 1
    return products * 2 * 512**3 / (time.perf_counter() - began)


@stage(
    "train",
    version="4",
    reads=("inputs", "target", "backbone", "train"),
    gives=Model,
    causes=causes,
    estimate=estimate,
)
def train(project: Project, dataset: Dataset, draft: Draft, events: Events) -> None:
    """Fine-tune the backbone on the training split; validation steers, test is never read."""
    backbone = backbones.resolve(_backbone_name(project), events, project.folder)
    began = time.perf_counter()
    source, answer = _columns(project, dataset, backbone)
    network, state = _fit(project, backbone, source, answer, draft, events, began)
    _write_network(network, source, answer, backbone, draft.out)
    _write_facts(state, source, answer, backbone, draft.out)
    draft.record.update(_measured(state, began))


def _backbone_name(project: Project) -> str:
    """The backbone chosen for the input's kind."""
    [*_, (_, chosen)] = project.inputs.items()
    return str(project.backbone.model_dump()[chosen.kind])


def _columns(project: Project, dataset: Dataset, backbone: Backbone) -> tuple[Column, Column]:
    """Input and target; what is learned of them is learned on the training split only."""
    refuse_several_inputs(project)
    [(name, chosen)] = project.inputs.items()
    values, kept = (_values(dataset, part, name) for part in ("train", "validation"))
    state = inputs.find(chosen.kind).learn(values, chosen.options, backbone.folder)
    source = Column(name, chosen.kind, state, values, kept)
    wanted = project.target
    values, kept = (_values(dataset, part, wanted.column) for part in ("train", "validation"))
    state = targets.find(wanted.kind).learn(values)
    return source, Column(wanted.column, wanted.kind, state, values, kept)


def refuse_several_inputs(project: Project) -> None:
    """Raise PairImpossible where [inputs] names more than one column."""
    if len(project.inputs) != 1:
        raise PairImpossible(
            f"A model takes one input column, and [inputs] names {len(project.inputs)} "
            f"({', '.join(project.inputs)}); keep one of them."
        )


def _values(dataset: Dataset, part: str, column: str) -> list[Any]:
    values: list[Any] = pq.read_table(dataset.part(part), columns=[column])[column].to_pylist()
    return values


def _fit(
    project: Project,
    backbone: Backbone,
    source: Column,
    answer: Column,
    draft: Draft,
    events: Events,
    began: float,
) -> "tuple[Any, State]":
    """The trained network, and how the training went."""
    import torch

    from modelyard.models import training

    kind, target = inputs.find(source.kind), targets.find(answer.kind)
    encode = kind.encoder(source.state, backbone.folder)
    rows, validation = encode(source.training), encode(source.validation)
    _tell_windows(rows, events)
    torch.manual_seed(project.train.seed)
    network = kind.network(backbone.folder, target.width(answer.state), project.train.dropout)
    job = training.Job(
        network=network,
        training=rows,
        task=_task(answer, validation, project.train.model_dump()),
        tokens=_tokens(network.main_input_name, rows, validation),
        options=project.train,
        kept=draft.kept,
        events=events,
        began=began,
    )
    return network, training.train(job)


def _task(answer: Column, validation: Encoded, options: Mapping[str, Any]) -> "Task":
    import torch

    from modelyard.models.evaluation import Task

    target, state = targets.find(answer.kind), answer.state
    truth, validation_truth = (
        torch.from_numpy(target.truth(values, state))
        for values in (answer.training, answer.validation)
    )
    return Task(
        losses=lambda outputs, truth: target.losses(outputs, truth, state, options),
        truth=truth,
        validation=validation,
        validation_truth=validation_truth,
        score=lambda outputs: target.score(answer.validation, target.decode(outputs, state)),
        main=target.main,
    )


def _tokens(name: str, *parts: Encoded) -> Any:
    """Every number that occurs in an array of the pieces, in rising order."""
    found = [piece[name] for part in parts for piece in part.pieces]
    fills = np.array([part.fill[name] for part in parts], dtype=np.int64)
    return np.unique(np.concatenate([*found, fills]))


def _tell_windows(rows: Encoded, events: Events) -> None:
    several = rows.rows - int((np.bincount(rows.row_of) == 1).sum())
    if several:
        why = f"{several:,} of {rows.rows:,} training rows are longer than one window"
        events(Decided("windows", "outputs of a row's windows are averaged", why))


def _write_network(
    network: Any, source: Column, answer: Column, backbone: Backbone, out: Path
) -> None:
    """config.json and model.safetensors as transformers reads them, and the tokenizer."""
    network.config.update(targets.find(answer.kind).config(answer.state))
    network.config.name_or_path = backbone.name
    network.save_pretrained(out)
    inputs.find(source.kind).save_preprocessing(backbone.folder, source.state, out)


def _write_facts(
    state: "State", source: Column, answer: Column, backbone: Backbone, out: Path
) -> None:
    """model.json, training.json and seen.npy."""
    from modelyard.models.training import history_of

    spec = ModelSpec(inputs=[source.spec()], target=answer.spec())
    (out / "model.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    facts = {
        "name": backbone.name,
        "licence": backbone.licence,
        "source": backbone.source,
        "digest": backbone.digest,
        "languages": list(backbone.languages),
    }
    told = history_of(state, {"backbone": facts})
    (out / "training.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    seen = [digest.row_digest([value]) for value in (*source.training, *source.validation)]
    np.save(out / "seen.npy", np.unique(np.array(seen, dtype=np.uint64)))


def _measured(state: "State", began: float) -> dict[str, Any]:
    """What was measured, for the record: no digest depends on it."""
    seconds = time.perf_counter() - began
    rows = sum(line["rows"] for line in state.history)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "training_seconds": round(seconds, 2),
        "rows_per_s": round(rows / state.epoch_seconds, 1),
        "peak_memory_bytes": peak,
        "threads": state.threads,
    }
