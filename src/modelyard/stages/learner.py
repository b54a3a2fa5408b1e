"""Learner: whether a table is learned by a network or by boosted trees, and the trees' training."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelyard import inputs, targets
from modelyard.core.errors import SettingInvalid
from modelyard.core.events import Decided, Events, Progress, silent
from modelyard.core.project import Project, Train
from modelyard.inputs import networks
from modelyard.runtime.encoded import Encoded
from modelyard.stages.lesson import Lesson, Part

if TYPE_CHECKING:
    from torch import Tensor

    from modelyard.models.loop import State
    from modelyard.models.trees import Lesson as Rows

FEW_TRIED = 2000
SHARE_TRIED = 0.05
"""Of all rows, where that is more: what decides may be rare."""
KEPT = "learner.json"
TRIAL_SHARE = 0.25
Losses = NDArray[np.float64]


def is_table(project: Project) -> bool:
    """Whether trees can learn this: rows of columns that need no pre-trained network."""
    kinds = {column.kind for column in project.inputs.values()}
    of_rows = targets.find(project.target.kind).reads == "rows"
    return of_rows and all(inputs.find(kind).together for kind in kinds)


def refuse_trees(project: Project) -> None:
    """Raise SettingInvalid where the project asks for trees and they cannot learn it."""
    if project.backbone.table == "trees" and not is_table(project):
        named = ", ".join(f"{name} ({c.kind})" for name, c in project.inputs.items())
        raise SettingInvalid(
            "backbone.table is 'trees', which learn one answer for a row from columns of numbers "
            f"and categories alone, and here [inputs] names {named} and target.kind is "
            f"{project.target.kind!r}; write 'auto' or 'network'."
        )


def choose(project: Project, lesson: Lesson, kept: Path, events: Events) -> dict[str, Any]:
    """The decision between network and trees; made once, also where training is resumed."""
    wanted = project.backbone.table
    if not is_table(project):
        return {"learner": "network", "why": ""}
    if wanted != "auto":
        return {"learner": wanted, "why": "the project file says so"}
    if (kept / KEPT).is_file():
        found: dict[str, Any] = json.loads((kept / KEPT).read_text(encoding="utf-8"))
        return found
    decision = tried(project, lesson, events)
    (kept / KEPT).write_text(json.dumps(decision), encoding="utf-8")
    events(Decided("learner", decision["learner"], decision["why"]))
    return decision


def tried(project: Project, lesson: Lesson, events: Events) -> dict[str, Any]:
    """Both, learned from most of the rows and measured on the others, each row in its turn."""
    from modelyard.models import trees

    seed = project.train.seed
    part = lesson.training
    count = max(FEW_TRIED, int(SHARE_TRIED * part.encoded.rows))
    chosen = np.random.default_rng(seed).permutation(part.encoded.rows)[:count]
    rows = _rows(lesson, part, project.train.model_dump() | {"label_smoothing": 0.0})
    rows = rows.take(np.sort(chosen))
    events(Progress("trying trees", 0, 2))
    seconds = project.train.minutes * 60 * TRIAL_SHARE
    of_trees = trees.hold_out(rows, seed, time.perf_counter() + (seconds or float("inf")))
    events(Progress("trying a network", 1, 2))
    of_network = _network_losses(project, lesson, rows)
    events(Progress("trying a network", 2, 2))
    decision = _decision(of_trees.losses, of_network)
    if count >= part.encoded.rows and not of_trees.is_cut:
        decision["rounds"] = of_trees.rounds  # nothing more could be tried of them
    return decision


def _decision(of_trees: Losses, of_network: Losses) -> dict[str, Any]:
    """The one with the lower loss on average, and the figures in words."""
    found = {"trees": float(of_trees.mean()), "network": float(of_network.mean())}
    better, other = sorted(found, key=lambda name: found[name])
    paired = of_trees - of_network
    error = float(paired.std(ddof=1) / np.sqrt(len(paired)))
    why = (
        f"on {len(paired):,} training rows held out in their turn the {better} "
        f"{'have' if better == 'trees' else 'has'} a loss of {found[better]:.4f} a row and the "
        f"{other} {found[other]:.4f} (difference {abs(paired.mean()):.4f}, standard error "
        f"{error:.4f})"
    )
    return {"learner": better, "why": why, "losses": found, "rows": len(paired)}


def _network_losses(project: Project, lesson: Lesson, rows: "Rows") -> Losses:
    """The losses of rows held out, by networks that learned from the others: (H,)."""
    from modelyard.models.trees import folds_of

    found = []
    for kept, held in folds_of(rows.rows, project.train.seed):
        network = _trial_network(project, lesson, rows.take(kept))
        some = rows.take(held)
        found.append(some.losses(_outputs(network, some), some.truth).double().numpy())
    return np.concatenate(found)


def _trial_network(project: Project, lesson: Lesson, rows: "Rows") -> Any:
    import tempfile

    import torch

    from modelyard.models import training
    from modelyard.models.evaluation import Task

    options: Train = project.train.model_copy(update={"minutes": 0.0, "precision": "fp32"})
    target, state = targets.find(lesson.spec.target.kind), lesson.spec.target.state
    torch.manual_seed(options.seed)
    network = networks.make(lesson.spec.inputs, lesson.folder_of, rows.width, options.dropout)
    encoded = _encoded(rows)
    told = options.model_dump()
    task = Task(
        losses=lambda outputs, truth: target.losses(outputs, truth, state, told),
        truth=lambda chosen: rows.truth.numpy()[chosen],
        validation=encoded.take(np.arange(0)),
        validation_truth=lambda chosen: rows.truth.numpy()[chosen],
        score=lambda outputs: [],
        main=target.steers,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = training.Job(
            network, encoded, task, {}, options, Path(folder), silent, time.perf_counter()
        )
        training.train(job)
    return network


def _encoded(rows: "Rows") -> Encoded:
    numbers = np.arange(rows.rows)
    return Encoded(rows.arrays, numbers, np.ones(len(numbers), dtype=np.int64))


def _outputs(network: Any, rows: "Rows") -> "Tensor":
    """A network's outputs for rows (B, C)."""
    import torch

    from modelyard.models.export import network_outputs

    return torch.from_numpy(np.stack(network_outputs(network, _encoded(rows))))


def _rows(lesson: Lesson, part: Part, options: Mapping[str, Any]) -> "Rows":
    """A part's rows as trees learn from them."""
    import torch

    from modelyard.models.trees import Lesson as Rows

    target, state = targets.find(lesson.spec.target.kind), lesson.spec.target.state
    return Rows(
        arrays=part.encoded.whole(),
        truth=torch.from_numpy(np.asarray(target.truth(part.truths, state, part.encoded))),
        width=target.width(state),
        losses=lambda outputs, truth: target.losses(outputs, truth, state, options),
    )


def fit_trees(
    project: Project, lesson: Lesson, decision: dict[str, Any], events: Events, began: float
) -> "tuple[Any, State]":
    """Trees for the training rows, and how the training went; killed, it simply runs again."""
    from modelyard.models import trees

    options = project.train
    told = options.model_dump() | {"label_smoothing": 0.0}
    rows = _rows(lesson, lesson.training, told)
    events(Progress("growing trees", 0, 1))
    started = time.perf_counter()
    budget = max(1.0, options.minutes * 60 - (started - began)) if options.minutes else 0.0
    known = None
    if "rounds" in decision:
        losses = np.array([decision["losses"]["trees"]])
        known = trees.Tried(losses, decision["rounds"], is_cut=False)
    grown = trees.fit(rows, options.seed, budget, known)
    events(Progress("growing trees", 1, 1))
    why = f"the loss on training rows held out was lowest there: {grown.held_loss:.4f} a row"
    if grown.is_cut:
        why = f"the {options.minutes:g} minutes were over"
    events(Decided("rounds", str(grown.rounds), why))
    state = _state(grown.rounds, why, time.perf_counter() - started)
    state.history = [_line(grown, rows, _rows(lesson, lesson.validation, told), lesson)]
    return grown.forest, state


def _state(rounds: int, why: str, seconds: float) -> "State":
    import torch

    from modelyard.models.loop import State

    return State(
        steps=rounds,
        epoch=1,
        kept_epoch=1,
        epoch_seconds=seconds,
        threads=torch.get_num_threads(),
        decisions={"rounds": {"rounds": rounds, "why": why}},
    )


def _line(grown: Any, rows: "Rows", validation: "Rows", lesson: Lesson) -> dict[str, Any]:
    """What an epoch's line of history tells, of all rounds together."""
    line = {"epoch": 1, "steps": grown.rounds, "rows": rows.rows, "loss": _loss(grown, rows)}
    if not validation.rows:
        return line
    target, part = targets.find(lesson.spec.target.kind), lesson.validation
    outputs = _outputs(grown.forest, validation).numpy()
    answers = target.decode(outputs, lesson.spec.target.state)
    measures = {each.name: each.value for each in target.score(part.truths, answers)}
    return {**line, "validation_loss": _loss(grown, validation), **measures}


def _loss(grown: Any, rows: "Rows") -> float:
    return float(rows.losses(_outputs(grown.forest, rows), rows.truth).mean())
