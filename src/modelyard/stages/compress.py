"""Compress: a trained network as a graph, made small, and checked against the network itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard import targets
from modelyard.core.artefacts import Dataset, Model
from modelyard.core.digest import files_in
from modelyard.core.events import Decided, Events, Noted, Progress
from modelyard.core.project import Project
from modelyard.core.rungs import AUTO, RungName
from modelyard.core.stages import GIGA, Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.inputs import networks
from modelyard.runtime.engine import OPENVINO, is_installed
from modelyard.runtime.graph import Graph, threads
from modelyard.stages.candidates import Candidates
from modelyard.stages.checked_rows import MOST_CHECKED_ROWS, CheckedRows
from modelyard.stages.choice import Choice, cheapest, named
from modelyard.stages.engines import quickest_engine
from modelyard.stages.front import AS_TRAINED
from modelyard.stages.ladder import MOST_STUDENTS, Ladder, broken, climb, measures_of
from modelyard.stages.rungs import RUNGS, Rung, share
from modelyard.stages.speed import Speed
from modelyard.stages.students import Students
from modelyard.stages.train import estimate as training_estimate
from modelyard.stages.unlabelled import unlabelled_cause, unlabelled_count

GRAPH = "graph.onnx"
SEEN = "seen.npy"
TOLD = "compress.json"
WEIGHTS = (".safetensors", ".safetensors.index.json")
START_S, RUNG_S = 5.0, 10.0
"""Loading and exporting the network; and of each rung its graph, its speed and its memory."""
ONLY_GRAPH = (
    "transformers cannot hold the smaller network, so what it loads is the network as trained; "
    "what is served is the smaller one."
)
CHARACTERS = 110
"""Of a text that is checked at a rate of 120 a second."""
TAUGHT_EPOCHS, TAUGHT_SHARE = 6, 0.5
"""What a smaller network learns in, and what it computes of what the trained one did."""


def causes(project: Project) -> Mapping[str, str]:
    """What else decides where smaller networks are made, and where the cheapest is looked for."""
    wanted, found = project.compress.target, {}
    if wanted == AUTO:
        found["accept"] = json.dumps(project.accept, sort_keys=True)
    if wanted == AUTO or RungName.read(wanted).ways:
        found["train.seed"] = str(project.train.seed)
    if is_installed(OPENVINO):
        found[OPENVINO] = version(OPENVINO)
    if cause := unlabelled_cause(project):
        found["unlabelled"] = cause
    return found


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Seconds to export, to check each rung on the validation rows, and to teach what is taught."""
    wanted = project.compress.target
    climbed = len(RUNGS) + MOST_STUDENTS * sum(form.is_quicker for form in RUNGS.values())
    rungs = climbed if wanted == AUTO else len(RungName.read(wanted).below())
    taught = MOST_STUDENTS if wanted == AUTO else len(RungName.read(wanted).ways)
    rows = min(MOST_CHECKED_ROWS, facts.rows * project.data.split.validation)
    texts = rows * max(1.0, facts.mean_characters / CHARACTERS)
    teaching = _teaching(project, facts) if taught else Estimate(0.0)
    return Estimate(
        START_S + rungs * (RUNG_S + texts / 120) + taught * teaching.seconds,
        memory_bytes=max(int(1.2 * GIGA), teaching.memory_bytes if taught else 0),
        disk_bytes=GIGA // 8 * max(1, taught),
    )


def _teaching(project: Project, facts: RowFacts) -> Estimate:
    """What one smaller network needs, at most."""
    minutes = project.compress.minutes
    options = {"minutes": minutes, "epochs": TAUGHT_EPOCHS, "method": "full"}
    train = project.train.model_copy(update=options)
    more = replace(facts, rows=facts.rows + unlabelled_count(project))
    found = training_estimate(project.model_copy(update={"train": train}), more)
    return found if minutes else replace(found, seconds=found.seconds * TAUGHT_SHARE)


@stage("compress", version="8", reads=("compress",), gives=Model, causes=causes, estimate=estimate)
def compress(
    project: Project, dataset: Dataset, model: Model, draft: Draft, events: Events
) -> None:
    """Export the network, climb the ladder to the wanted rung, and keep it unless it loses."""
    ladder = _ladder(project, dataset, model, draft, events)
    names = _climbed(ladder)
    rungs = [ladder.rung(each) for each in names] if ladder.rows.truth else []
    speeds = ladder.speeds(names)
    # limits are a cause of this stage where they decide; elsewhere the audit alone tells of them
    limits = project.accept if project.compress.target == AUTO else {}
    lost = {each.name: broken(measures_of(each, speeds[each.name]), limits) for each in rungs}
    choice = _choice(ladder, rungs, speeds, lost)
    events(Decided("graph", choice.name, choice.why + _quicker(choice.name, speeds)))
    draft.record["threads"] = threads()
    draft.record["rungs"] = {
        name: {**speed.to_json(), "broken": lost.get(name, [])} for name, speed in speeds.items()
    }
    chosen = RungName.read(choice.name)
    engine, beside = quickest_engine(ladder, chosen)
    draft.record["engine"] = beside and {OPENVINO: asdict(beside)}
    if targets.find(model.spec.target.kind).reads == "vectors":
        _write_index(ladder, Graph(ladder.graph(chosen), engine=engine), draft.out)
    states = {each.name: dict(each.state) for each in rungs}
    state = states.get(choice.name, model.spec.target.state)
    has_files = _write(ladder, chosen, state, engine, draft.out)
    _tell(draft.out, project.compress.target, choice, rungs, chosen if has_files else RungName())


def _ladder(
    project: Project, dataset: Dataset, model: Model, draft: Draft, events: Events
) -> Ladder:
    students, rungs = (draft.kept / name for name in ("students", "rungs"))
    rungs.mkdir(exist_ok=True)
    rows = CheckedRows.of(dataset, model)
    return Ladder(project, rows, Students(project, dataset, model, students, events), rungs, events)


def _climbed(ladder: Ladder) -> list[RungName]:
    """The rungs that are made, the plainest first: up to the wanted one, or all worth a look."""
    wanted = ladder.project.compress.target
    if not ladder.rows.truth or not networks.multiplies(ladder.rows.model.folder):
        if ladder.project.compress.unlabelled:
            ladder.events(Noted("compress.unlabelled is not read, as no smaller network is taught"))
        return [RungName()]
    return climb(ladder) if wanted == AUTO else RungName.read(wanted).below()


def _choice(
    ladder: Ladder,
    rungs: Sequence[Rung],
    speeds: Mapping[str, Speed],
    lost: Mapping[str, Sequence[str]],
) -> Choice:
    options = ladder.project.compress
    wanted = "a rung" if options.target == AUTO else options.target
    if rungs and wanted != "fp32" and not networks.multiplies(ladder.rows.model.folder):
        why = f"trees compare and add, and have no products that {wanted} makes smaller"
        return Choice("fp32", why)
    if options.target == AUTO:
        return cheapest(rungs, speeds, lost, options.max_loss)
    return named(rungs, options.target, options.max_loss)


def _quicker(name: str, speeds: Mapping[str, Speed]) -> str:
    """How fast it is here, which is told and is no part of the result."""
    if name not in speeds or name == "fp32":
        return ""
    own, plain = (speeds[each].rows_per_s for each in (name, "fp32"))
    return f"; {own:,.0f} rows/s here, {own / plain:.1f} × as many as fp32"


def _write_index(ladder: Ladder, graph: Graph, out: Path) -> None:
    """All candidates, with the vectors of the graph that will be asked."""
    rows, events = ladder.rows, ladder.events
    candidates = Candidates.of(ladder.students.dataset, rows.model.spec, rows.columns)
    events(Progress("making the index", 0, len(candidates.ids), "candidates"))
    candidates.index(graph.outputs).save(out)
    events(Progress("making the index", len(candidates.ids), len(candidates.ids), "candidates"))


def _write(ladder: Ladder, chosen: RungName, state: dict[str, Any], engine: str, out: Path) -> bool:
    """The Model's files, not copied where the file system can share them, and the graph.

    Whether the network in them is the smaller one, where one was chosen.
    """
    model = ladder.rows.model
    is_smaller = bool(chosen.ways) and ladder.students.share_files(chosen.ways, out)
    for name in files_in(model.folder):
        stale = is_smaller and name.endswith(WEIGHTS)  # in other files than the smaller one's
        if name != "model.json" and not stale and not (out / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            share(model.folder / name, out / name)
    share(ladder.graph(chosen), out / GRAPH)
    answer = model.spec.target.model_copy(update={"state": state})
    spec = model.spec.model_copy(update={"graph": GRAPH, "target": answer, "engine": engine})
    (out / "model.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    if chosen.ways and ladder.students.unlabelled:
        _write_seen(out, ladder.students.unlabelled.digests)
    if chosen.ways and not is_smaller:
        ladder.events(Noted(ONLY_GRAPH))
    return is_smaller


def _write_seen(out: Path, more: NDArray[np.uint64]) -> None:
    """What a smaller network has learned from beside the training rows; no test row may be one."""
    known = np.load(out / SEEN, allow_pickle=False)
    (out / SEEN).unlink()  # which the trained Model shares
    np.save(out / SEEN, np.union1d(known, more))


def _tell(out: Path, wanted: str, choice: Choice, rungs: Sequence[Rung], network: RungName) -> None:
    told = {
        "target": wanted,
        "choice": choice.name,
        "why": choice.why,
        "network": "+".join(network.ways) or AS_TRAINED,
        "rungs": [each.to_json() for each in rungs],
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    (out / TOLD).write_text(text, encoding="utf-8")
