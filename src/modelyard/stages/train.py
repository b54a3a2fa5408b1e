"""Train: a dataset and a backbone in, a model in Hugging Face form out."""

import json
import math
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from modelyard import inputs, targets
from modelyard.core.artefacts import ROW, ColumnState, Dataset, Model, ModelSpec
from modelyard.core.errors import SettingInvalid
from modelyard.core.events import Decided, Events, Noted, silent
from modelyard.core.measure import Measure
from modelyard.core.project import InputColumn, Project
from modelyard.core.stages import GIGA, Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.inputs import networks
from modelyard.models import backbones
from modelyard.models.backbones import Backbone
from modelyard.models.known import Size, transformer
from modelyard.models.schedule import epochs_for
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded, Ragged, of_pieces, of_rows
from modelyard.runtime.runtime import SEEN
from modelyard.stages.all_candidates import AllCandidates
from modelyard.stages.candidates import Pairing
from modelyard.stages.learner import choose, fit_trees, is_table, tried
from modelyard.stages.lesson import NOWHERE, Lesson, Part
from modelyard.targets import Picks, Target

TABLE_SIZE = transformer(256, 1, 0)
MEASURING_SECONDS = 0.05
START_SECONDS = 10.0  # imports, loading, saving
STEP_TOKENS = 4096
CANDIDATE = "text"
"""The kind of input by which a candidate is told."""
BESIDE = 2
"""Candidates that a row is read beside: a right and a wrong one."""
EPOCH_IN_FORWARDS = 3.2  # forward, a backward pass, evaluation
USED_SHARE = 0.6  # of the speed of plain matrix products

if TYPE_CHECKING:
    from modelyard.models.evaluation import ByPiece, Task, Truth
    from modelyard.models.loop import State


def causes(project: Project) -> Mapping[str, str]:
    """The digests of the backbones, without fetching them."""
    return {
        kind: backbones.cause(name, project.folder)
        for kind, name in backbone_names(project).items()
    }


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Seconds, memory and disk, from the backbone's size and this machine's speed."""
    read = _read(project, facts)
    size = max((size for size, _ in read), key=lambda each: each.parameters)
    options = project.train
    rows = facts.rows * (1 - project.data.split.test - project.data.split.validation)
    forward = 2 * rows * sum(size.body * tokens for size, tokens in read)
    steps = max(1, math.ceil(rows / options.batch_rows))
    epochs = options.epochs or epochs_for(steps, facts.labels)
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


def _read(project: Project, facts: RowFacts) -> list[tuple[Size, float]]:
    """The networks that a row goes through, and about how many tokens go through each."""
    names = backbone_names(project)
    sizes = {kind: backbones.size(name, project.folder) for kind, name in names.items()}
    columns = list(project.inputs.values())
    read = [(column, 1, facts.mean_characters) for column in columns]
    if targets.find(project.target.kind).reads == "vectors":
        texts = (column for column in columns if column.kind == CANDIDATE)
        own = next(texts, InputColumn(kind=CANDIDATE))
        read.append((own, BESIDE, facts.candidate_characters))
    return [
        (
            _cut(sizes.get(column.kind, TABLE_SIZE), column.options.get("layers")),
            times * inputs.find(column.kind).tokens(column.options, characters),
        )
        for column, times, characters in read
    ]


def _cut(size: Size, layers: int | None) -> Size:
    """The size of a network of which the first layers are used."""
    kept = min(size.layers, layers or size.layers)
    return replace(size, layers=kept, body=size.body * kept // max(1, size.layers))


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
    version="9",
    reads=("inputs", "target", "backbone", "train"),
    gives=Model,
    causes=causes,
    estimate=estimate,
)
def train(project: Project, dataset: Dataset, draft: Draft, events: Events) -> None:
    """Fine-tune the backbones on the training split; validation steers, test is never read."""
    found = {
        kind: backbones.resolve(name, events, project.folder, kind)
        for kind, name in backbone_names(project).items()
    }
    began = time.perf_counter()
    lesson = _paired(project, _lesson(project, dataset, found), dataset, draft, events)
    network, state = _learned_network(project, lesson, draft, events, began)
    lesson = replace(lesson, spec=_settled(network, lesson, events))
    _write_network(network, lesson, draft.out)
    _write_facts(state, lesson, draft.out)
    if lesson.beside:
        lesson.beside.save(draft.out)
    draft.record.update(_measured(state, began))


def _learned_network(
    project: Project, lesson: Lesson, draft: Draft, events: Events, began: float
) -> "tuple[Any, State]":
    """The network, or the trees where these are the better choice, and how it went."""
    decision = choose(project, lesson, draft.kept, events)
    if decision["learner"] == "trees":
        network, state = fit_trees(project, lesson, decision, events, began)
    else:
        network, state = _fit(project, lesson, draft, events, began)
    if is_table(project):
        state.decisions = {"learner": decision, **state.decisions}
    return network, state


def backbone_names(project: Project) -> dict[str, str]:
    """The backbone chosen for each kind of input that has one."""
    chosen = project.backbone.model_dump()
    kinds = dict.fromkeys(column.kind for column in project.inputs.values())
    if targets.find(project.target.kind).reads == "vectors":
        kinds[CANDIDATE] = None
    return {kind: str(chosen[kind]) for kind in kinds if kind in chosen}


def refuse_still(project: Project, target: Target) -> None:
    """Raise SettingInvalid where nothing would move: vectors are the backbone's own."""
    if target.reads == "vectors" and project.train.method == "head":
        raise SettingInvalid(
            f'train.method = "head" moves what is over the backbone, and a target of kind '
            f'{target.kind!r} has nothing there; choose "full" or "lora".'
        )


def _lesson(project: Project, dataset: Dataset, found: Mapping[str, Backbone]) -> Lesson:
    """Inputs and target; what is learned of them is learned on the training split only."""
    names = [ROW, *project.inputs, project.target.column]
    table, kept = (pq.read_table(dataset.part(p), columns=names) for p in ("train", "validation"))
    return _lesson_of(project, table, kept, found)


def foreseen(project: Project, table: pa.Table) -> dict[str, Any]:
    """The decision between network and trees that these rows would lead to, with its figures."""
    return tried(project, _lesson_of(project, table, table.slice(0, 0), {}), silent)


def _lesson_of(
    project: Project, table: pa.Table, kept: pa.Table, found: Mapping[str, Backbone]
) -> Lesson:
    wanted = project.target
    target = targets.find(wanted.kind)
    sources = [
        ColumnState(
            column=name,
            kind=chosen.kind,
            state=_learned(table, name, chosen, found, target.reads),
        )
        for name, chosen in project.inputs.items()
    ]
    state = target.learn(table[wanted.column].to_pylist())
    candidate = None
    if target.reads == "vectors":
        candidate = _candidate(sources, wanted.column, found)
        state |= {"width": candidate.state["width"], SEEN: wanted.seen}
    spec = ModelSpec(
        inputs=sources,
        target=ColumnState(column=wanted.column, kind=wanted.kind, state=state),
        candidate=candidate,
    )
    folder = {kind: backbone.folder for kind, backbone in found.items()}
    columns = Columns.open(
        spec.columns, lambda g: folder.get(g.kind, NOWHERE), inputs.find, spec.unasked
    )
    training, validation = (_part(columns, spec, each) for each in (table, kept))
    return Lesson(spec, found, training, validation)


def _candidate(
    sources: Sequence[ColumnState], answer: str, found: Mapping[str, Backbone]
) -> ColumnState:
    """What a candidate's text is read by: the first text of the rows, or one under `answer`."""
    own = next((source for source in sources if source.kind == CANDIDATE), None)
    if own:
        return own
    state = inputs.find(CANDIDATE).learn([], {}, found[CANDIDATE].folder, "vectors")
    return ColumnState(column=answer, kind=CANDIDATE, state=state)


def _paired(
    project: Project, lesson: Lesson, dataset: Dataset, draft: Draft, events: Events
) -> Lesson:
    """The rows beside their candidates, where the target picks from such."""
    target, state = targets.find(lesson.spec.target.kind), lesson.spec.target.state
    if not isinstance(target, Picks):
        return lesson
    pairing = Pairing.of(lesson.spec, lesson.folder_of, dataset, draft.kept, events)
    pairing.save(draft.out)
    lesson = replace(lesson, pairing=pairing)
    training, validation = lesson.training, lesson.validation
    beside = AllCandidates.of(
        pairing, target, state, training.encoded, training.truths, project.train.batch_rows
    )
    if beside:
        training, validation = (
            replace(part, encoded=beside.side(part.encoded)) for part in (training, validation)
        )
        return replace(lesson, training=training, validation=validation, beside=beside)
    kept, truths = pairing.own(validation.encoded, validation.truths)
    rows, pairs = pairing.mined(training.encoded, training.truths, project.train.seed)
    return replace(
        lesson,
        training=replace(training, encoded=rows, learned=pairs),
        validation=replace(validation, encoded=kept, learned=truths),
    )


def _learned(
    table: pa.Table, name: str, chosen: InputColumn, found: Mapping[str, Backbone], reads: str
) -> dict[str, Any]:
    folder = found[chosen.kind].folder if chosen.kind in found else NOWHERE
    values = table[name].to_pylist()
    return inputs.find(chosen.kind).learn(values, chosen.options, folder, reads)


def _part(columns: Columns, spec: ModelSpec, table: pa.Table) -> Part:
    values = {name: table[name].to_pylist() for name in columns.names}
    return Part(
        digests=inputs.row_digests(spec.inputs, values, table[ROW].to_pylist()),
        encoded=columns.encode(values),
        truths=table[spec.target.column].to_pylist(),
    )


def _fit(
    project: Project, lesson: Lesson, draft: Draft, events: Events, began: float
) -> "tuple[Any, State]":
    """The trained network, and how the training went."""
    import torch

    from modelyard.models import training

    spec = lesson.spec
    target = targets.find(spec.target.kind)
    rows = lesson.training.encoded
    beside = lesson.beside
    _tell_windows(rows, events)
    torch.manual_seed(project.train.seed)
    network = networks.make(
        spec.columns, lesson.folder_of, target.width(spec.target.state), project.train.dropout
    )
    job = training.Job(
        network=network,
        training=rows,
        task=_task(lesson, project.train.model_dump()),
        tokens=_tokens(lesson),
        options=project.train,
        kept=draft.kept,
        events=events,
        began=began,
        paired=lesson.pairing is not None,
        history=beside.history if beside else None,
        labels=len(spec.target.state.get("labels", ())),
    )
    return network, training.train(job)


def _task(lesson: Lesson, options: Mapping[str, Any]) -> "Task":
    import torch

    from modelyard.models.evaluation import Task

    target, state = targets.find(lesson.spec.target.kind), lesson.spec.target.state
    validation, width = lesson.validation, target.width(state)
    beside = lesson.beside

    def score(outputs: "ByPiece") -> Sequence[Measure]:
        found: Any = of_rows(of_pieces(outputs, width), validation.encoded)
        if lesson.pairing:
            found = lesson.pairing.ranked(found, validation.truths)
        return target.score(validation.truths, target.decode(found, state))

    if lesson.pairing and not lesson.beside:
        shares = lesson.pairing.log_shares(lesson.training.learned or [])
        options = {**options, "log_shares": torch.from_numpy(shares)}
    return Task(
        losses=lambda outputs, truth: target.losses(outputs, truth, state, options),
        truth=_truth(lesson.training, lesson),
        validation=validation.encoded,
        validation_truth=_truth(validation, lesson),
        score=score,
        main=target.steers,
        shared=beside.shared(validation.encoded, validation.truths) if beside else None,
    )


def _truth(part: Part, lesson: Lesson) -> "Truth":
    """What gives the truths of some of a part's rows."""
    spec = lesson.spec
    if lesson.beside:
        return lesson.beside.truth(part.truths)
    target = targets.find(spec.target.kind)
    truths = part.truths if part.learned is None else part.learned
    if target.reads == "vectors":  # what a row has seen may be long: only a step's rows at once
        return lambda rows: np.asarray(
            target.truth([truths[row] for row in rows], spec.target.state, part.encoded)
        )
    truth = target.truth(truths, spec.target.state, part.encoded)
    if isinstance(truth, Ragged):
        return lambda rows: truth.take(rows).padded()[0]
    return lambda rows: truth[rows]


def _settled(network: Any, lesson: Lesson, events: Events) -> ModelSpec:
    """The model to be, with what its target learns from the network's validation outputs."""
    spec, rows = lesson.spec, lesson.validation
    target, answer = targets.find(spec.target.kind), spec.target
    if not isinstance(target, targets.Settles) or not rows.truths:
        return spec
    from modelyard.models.export import network_outputs

    width = target.width(answer.state)
    outputs = of_pieces(network_outputs(network, rows.encoded), width)
    state, told = target.settle(of_rows(outputs, rows.encoded), rows.truths, answer.state)
    events(Noted(told))
    return spec.model_copy(update={"target": answer.model_copy(update={"state": state})})


def _tokens(lesson: Lesson) -> dict[str, NDArray[np.int64]]:
    """Every token that occurs in the pieces, in rising order, by the group that reads them.

    Of what is paired all sides are read by the same groups.
    """
    paired, beside = lesson.pairing is not None, lesson.beside
    found: dict[str, list[NDArray[Any]]] = {}
    parts = [lesson.training.encoded, lesson.validation.encoded]
    if beside:
        parts.append(beside.side(beside.pairing.candidates.encoded))
    for part in parts:
        for name, array in part.arrays.items():
            if isinstance(array, Ragged) and array.mask:
                group = name.rpartition(".")[0]
                group = group.partition(".")[2] if paired else group
                found.setdefault(group, []).extend([array.values, np.array([array.fill])])
    return {g: np.unique(np.concatenate(own)).astype(np.int64) for g, own in found.items()}


def _tell_windows(rows: Encoded, events: Events) -> None:
    several = rows.rows - int((np.bincount(rows.row_of) == 1).sum())
    if several:
        why = f"{several:,} of {rows.rows:,} training rows are longer than one window"
        how = "each token is answered for by one of its row's windows"
        if rows.places is None:
            how = "outputs of a row's windows are averaged"
        events(Decided("windows", how, why))


def _write_network(network: Any, lesson: Lesson, out: Path) -> None:
    """What transformers or this project reads the network from, and the tokenizers."""
    from modelyard.models.fused import pretrained

    answer = lesson.spec.target
    for tower in pretrained(network):
        tower.config.name_or_path = ", ".join(b.name for b in lesson.backbones.values())
        if tower is network:  # its outputs are the target's
            tower.config.update(targets.find(answer.kind).config(answer.state))
    networks.save(network, lesson.spec.columns, lesson.folder_of, out)


def _write_facts(state: "State", lesson: Lesson, out: Path) -> None:
    """model.json, training.json and seen.npy."""
    from modelyard.models.training import history_of

    (out / "model.json").write_text(lesson.spec.model_dump_json(indent=1), encoding="utf-8")
    facts = [_backbone_facts(backbone) for backbone in lesson.backbones.values()]
    told = history_of(state, {"backbones": facts})
    (out / "training.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    seen = np.concatenate([lesson.training.digests, lesson.validation.digests])
    np.save(out / "seen.npy", np.unique(seen))


def _backbone_facts(backbone: Backbone) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "licence": backbone.licence,
        "source": backbone.source,
        "digest": backbone.digest,
        "languages": list(backbone.languages),
    }


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
