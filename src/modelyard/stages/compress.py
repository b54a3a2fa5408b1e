"""Compress: a trained network as a graph, made small, and checked against the network itself."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from modelyard import inputs, targets
from modelyard.core.artefacts import Dataset, Model
from modelyard.core.digest import files_in
from modelyard.core.events import Decided, Events, Progress
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.stages import GIGA, Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.inputs import networks
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded, PieceOutputs, of_pieces, of_rows
from modelyard.runtime.graph import Graph
from modelyard.runtime.index import MOST, Ranked, history_in
from modelyard.runtime.runtime import columns_of
from modelyard.stages.candidates import Candidates, pools_of
from modelyard.targets import Target

GRAPH = "graph.onnx"
MOST_CHECKED_ROWS = 2000
TIMED_ROWS = 128
TIMED_TURNS = 3
ROUNDING = 1e-9  # a loss of one hundredth is 0.010000000000000009 as a difference of floats
Answer = Mapping[str, Any]
Run = Callable[[Encoded], PieceOutputs]
"""A network or a graph."""


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _int8(plain: Path, file: Path) -> None:
    from modelyard.models.quantize import quantize

    quantize(plain, file)


RUNGS: dict[str, Callable[[Path, Path], None]] = {
    "fp32": _share,
    "int8": _int8,
}
"""Each rung makes a graph of the plain fp32 one; a later rung is smaller."""


@dataclass(frozen=True)
class CheckedRows:
    """Validation rows that each rung is checked on."""

    encoded: Encoded
    truth: Sequence[Any]
    answers: Callable[[Run], Sequence[Answer]]
    main: Callable[[Sequence[Any], Sequence[Answer]], Measure]


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder, checked: its size, its measure, how near it is to the network."""

    name: str
    size_bytes: int
    measure: Measure
    loss: float
    """How much worse the measure is: as a share, or, of an error, as a share of the network's."""
    agreement: float | None
    """The share of equal answers; None where an answer is nothing but numbers."""
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """The rung as compress.json has it."""
        return {
            "name": self.name,
            "value": self.measure.value,
            "low": self.measure.low,
            "high": self.measure.high,
            "loss": round(self.loss, 6),
            "agreement": self.agreement,
            "largest_difference": float(f"{self.largest_difference:.3g}"),
            "bytes": self.size_bytes,
            "rows": self.measure.rows,
        }


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Seconds to load and export, then to check each rung on the validation rows."""
    rows = min(MOST_CHECKED_ROWS, facts.rows * project.data.split.validation)
    texts = rows * max(1.0, facts.mean_characters / 110)
    return Estimate(15 + texts / 60, memory_bytes=int(1.2 * GIGA), disk_bytes=GIGA // 8)


@stage("compress", version="4", reads=("compress",), gives=Model, estimate=estimate)
def compress(
    project: Project, dataset: Dataset, model: Model, draft: Draft, events: Events
) -> None:
    """Export the network, climb the rungs up to the wanted one, and keep it unless it loses."""
    wanted = project.compress.target
    rows = _checked_rows(dataset, model)
    original = _exported(model, rows, draft, events)
    names = list(RUNGS)[: list(RUNGS).index(wanted) + 1]
    if not networks.multiplies(model.folder):
        names = ["fp32"]
    files = {name: _climbed(name, draft) for name in names}
    rungs = list(_checked(files, rows, original, events))
    choice, why = _choice(rungs, wanted, project.compress.max_loss)
    events(Decided("graph", choice, why))
    draft.record["rows_per_s"] = _rows_per_s(files, rows)
    if targets.find(model.spec.target.kind).reads == "vectors":
        _write_index(dataset, model, files[choice], draft.out, events)
    _write(model, files[choice], draft.out)
    told = {"target": wanted, "choice": choice, "why": why, "rungs": [r.to_json() for r in rungs]}
    (draft.out / "compress.json").write_text(
        json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _checked_rows(dataset: Dataset, model: Model) -> CheckedRows:
    """At most 2,000 validation rows, evenly spaced."""
    answer, columns = model.spec.target, _columns(model)
    table = pq.read_table(dataset.part("validation"), columns=[*columns.names, answer.column])
    count = min(len(table), MOST_CHECKED_ROWS)
    table = table.take(np.linspace(0, len(table) - 1, count).astype(np.int64))
    target = targets.find(answer.kind)
    encoded = columns.encode({name: table[name].to_pylist() for name in columns.names})
    truth = table[answer.column].to_pylist()
    answers = partial(_answers, target, answer.state, encoded)
    if target.reads == "vectors":
        history = history_in(model.folder)
        own = [each for row in truth for each in row["right"][:1]] if history is None else None
        pools = pools_of(truth) if own is None else None
        candidates = Candidates.of(dataset, model.spec, columns, own)

        def search(run: Run, outputs: Any) -> Ranked:
            return candidates.index(run, history).search(outputs, MOST, pools)

        answers = partial(answers, search=search)
    return CheckedRows(
        encoded=encoded,
        truth=truth,
        answers=answers,
        main=lambda truth, answers: next(
            each for each in target.score(truth, answers) if each.name == target.main
        ),
    )


def _answers(
    target: Target,
    state: dict[str, Any],
    encoded: Encoded,
    run: Run,
    search: Callable[[Run, Any], Ranked] | None = None,
) -> Sequence[Answer]:
    """What rows are answered with; picked from candidates where there are such."""
    outputs: Any = of_rows(run(encoded), encoded)
    if search:
        outputs = search(run, outputs)
    return target.decode(outputs, state)


def _columns(model: Model) -> Columns:
    return columns_of(model.spec, model.folder, inputs.find)


def _exported(model: Model, rows: CheckedRows, draft: Draft, events: Events) -> Sequence[Answer]:
    """The network's own answers; the fp32 graph lies in `kept` afterwards."""
    from modelyard.models.export import export, network_outputs

    sources, answer = model.spec.columns, model.spec.target
    events(Progress("reading the network's own answers", 0, 1))
    width = targets.find(answer.kind).width(answer.state)
    network = networks.load(sources, model.folder, width)
    original = rows.answers(lambda some: of_pieces(network_outputs(network, some), width))
    events(Progress("exporting the graph", 0, 1))
    examples = {each.column: [inputs.find(each.kind).example()] * 2 for each in sources}
    example = _columns(model).encode(examples)
    export(network, example.collate([0, 1]), example.ragged, draft.kept / "plain.onnx")
    return original


def _climbed(name: str, draft: Draft) -> Path:
    file = draft.kept / f"{name}.onnx"
    file.unlink(missing_ok=True)
    RUNGS[name](draft.kept / "plain.onnx", file)
    return file


def _checked(
    files: Mapping[str, Path], rows: CheckedRows, original: Sequence[Answer], events: Events
) -> Iterator[Rung]:
    """Each rung's measure and its distance from the network; nothing where there are no rows."""
    if not rows.truth:
        return
    own = rows.main(rows.truth, original)
    for done, (name, file) in enumerate(files.items()):
        events(Progress("checking the graphs", done, len(files), "graphs"))
        found = rows.answers(Graph(file).outputs)
        measure = rows.main(rows.truth, found)
        yield Rung(
            name=name,
            size_bytes=file.stat().st_size,
            measure=measure,
            loss=_loss(own, measure),
            agreement=_agreement(original, found),
            largest_difference=_largest_difference(original, found),
        )


def _loss(own: Measure, found: Measure) -> float:
    """What is lost of a share; of an error, which has a unit, what is added as a share of it."""
    if own.higher_is_better:
        return own.value - found.value
    return (found.value - own.value) / (own.value or 1.0)


def _agreement(first: Sequence[Answer], second: Sequence[Answer]) -> float | None:
    """The share of answers that are equal but for their scores; None where those are all."""
    if all(isinstance(value, float) for value in first[0].values()):
        return None
    equal = sum(bool(_said(a) == _said(b)) for a, b in zip(first, second, strict=True))
    return equal / len(first)


def _said(value: Any) -> Any:
    """An answer, or a part of it, with 0 for each of its scores."""
    if isinstance(value, float):
        return 0.0
    if isinstance(value, Mapping):
        return {name: _said(inner) for name, inner in value.items()}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


def _scores(value: Any) -> Iterator[float]:
    """Every score within an answer, in order."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _scores(inner)


def _largest_difference(first: Sequence[Answer], second: Sequence[Answer]) -> float:
    """Between scores of answers that have as many."""
    found = [0.0]
    for pair in zip(first, second, strict=True):
        ours, theirs = (list(_scores(answer)) for answer in pair)
        if len(ours) == len(theirs):
            found += [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return max(found)


def _choice(rungs: Sequence[Rung], wanted: str, max_loss: float) -> tuple[str, str]:
    """The rung to release, and why in words a person reads."""
    if wanted == "fp32":
        return wanted, "the project file asks for fp32"
    if len(rungs) == 1:
        return "fp32", f"trees compare and add, and have no products that {wanted} makes smaller"
    if not rungs:
        return "fp32", f"there are no validation rows on which {wanted} could be checked"
    rung = next(each for each in rungs if each.name == wanted)
    name, hundredths = rung.measure.name, f"{100 * rung.loss:.2f}"
    said = f"{wanted} loses {hundredths} points of {name}"
    if not rung.measure.higher_is_better:
        said = f"{wanted} adds {hundredths} % to {name}"
    if rung.loss <= 0:
        said = f"{wanted} {'loses no' if rung.measure.higher_is_better else 'adds no'} {name}"
    said += f" on {rung.measure.rows:,} validation rows"
    if rung.loss > max_loss + ROUNDING:
        return "fp32", f"{said}, more than compress.max_loss = {max_loss:g} allows"
    return wanted, f"{said} and is {_times_smaller(rungs, rung):.1f} × smaller"


def _times_smaller(rungs: Sequence[Rung], rung: Rung) -> float:
    return rungs[0].size_bytes / rung.size_bytes


def _rows_per_s(files: Mapping[str, Path], rows: CheckedRows) -> dict[str, float]:
    """How fast each rung is, measured in turn: the median of three, without encoding."""
    pieces = rows.encoded.first(TIMED_ROWS)
    if not pieces.rows:
        return {}
    graphs = {name: Graph(file) for name, file in files.items()}
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(TIMED_TURNS):
        for name, graph in graphs.items():
            started = time.perf_counter()
            graph.outputs(pieces)
            seconds[name].append(time.perf_counter() - started)
    return {name: round(pieces.rows / float(np.median(s)), 1) for name, s in seconds.items()}


def _write_index(dataset: Dataset, model: Model, graph: Path, out: Path, events: Events) -> None:
    """All candidates, with the vectors of the graph that will be asked."""
    candidates = Candidates.of(dataset, model.spec, _columns(model))
    events(Progress("making the index", 0, len(candidates.ids), "candidates"))
    candidates.index(Graph(graph).outputs).save(out)
    events(Progress("making the index", len(candidates.ids), len(candidates.ids), "candidates"))


def _write(model: Model, graph: Path, out: Path) -> None:
    """The model's files, not copied where the file system can share them, and the graph."""
    for name in files_in(model.folder):
        if name != "model.json":
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            _share(model.folder / name, out / name)
    graph.replace(out / GRAPH)
    spec = model.spec.model_copy(update={"graph": GRAPH})
    (out / "model.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
