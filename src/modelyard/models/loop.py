"""The training loop: steps, evaluation, early stopping, the time budget, resuming.

It takes a network, an optimiser and batches as three plain objects, so that a guard may wrap
them first. The same seed, rows and number of threads give the same weights, also over a kill.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modelyard.core.events import Decided, Events, Noted, Progress
from modelyard.models import checkpoint
from modelyard.models.batches import Batch, Batches, Part
from modelyard.models.dropout import noise
from modelyard.models.evaluation import Task, evaluate, row_outputs
from modelyard.models.fast_bert import made_ready
from modelyard.models.sampling import row_weights
from modelyard.models.schedule import Pace, rate
from modelyard.models.shared import parts_of, read
from modelyard.models.workers import MOST_WORKERS, Map, in_turn, side_by_side

CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 0.01
EVENT_SECONDS = 1.0
FORWARD_SHARE = 0.5  # of a step's time, with a margin


@dataclass(frozen=True)
class Recipe:
    """How long and how the weights are moved; `seconds` is a budget, 0 for none."""

    epochs: int
    seconds: float
    warmup: float
    clip_norm: float
    patience: int
    seed: int
    sampled: bool = False
    """Whether rows with little gradient are left out of the backward pass, by chance."""
    workers: int = 1


class Added(NamedTuple):
    """Sums over the rows of a step."""

    loss: float
    kept: int


@dataclass
class State:
    """How far training has come; plain JSON, kept with each checkpoint."""

    steps: int = 0
    epoch: int = 0
    steps_of_epoch: int = 0
    loss: float = 0.0
    rows: int = 0
    kept: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    """Of the epochs without their evaluations: steps, batches, events, checkpoints but the last."""
    started: float | None = None
    threads: int = 0
    best: tuple[float, float] | None = None
    best_error: float = 0.0
    best_epoch: int = 0
    last: tuple[float, float] | None = None
    good_epoch: int = 0
    """The last epoch that was not clearly worse than the best."""
    kept_epoch: int = 0
    """The epoch whose weights the network has at the end; 0 where no rows validate."""
    history: list[dict[str, Any]] = field(default_factory=list)
    decisions: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One training: the three objects, what they are for, and how far they have come."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    batches: Batches
    task: Task
    recipe: Recipe
    pace: Pace
    state: State
    kept: Path
    events: Events
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    base_rates: list[float] = field(default_factory=list)
    recent: list[tuple[float, int]] = field(default_factory=list)
    saved: float = field(default_factory=time.perf_counter)
    save_seconds: float = 0.0
    told: float = 0.0
    side_by_side: Map = in_turn
    shared_parts: Sequence[Part] = ()


def fit(run: Run) -> State:
    """Train to the end of the recipe; the network holds the last weights, or clearly better ones.

    Without validation rows it holds the last.
    """
    run.base_rates = [float(group["lr"]) for group in run.optimiser.param_groups]
    run.network.train()
    with _settings(run.state), side_by_side(run.recipe.workers) as run.side_by_side:
        while run.state.steps_of_epoch or not _is_over(run):
            _epoch(run)
    _keep_best(run)
    run.network.eval()
    return run.state


def _keep_best(run: Run) -> None:
    state = run.state
    last = state.epoch if state.best else 0
    state.kept_epoch = last if _is_last_as_good(run) else state.best_epoch
    if state.kept_epoch == state.best_epoch != last:
        checkpoint.put_weights(run.network, run.best_weights)
        why = f"it is the best of {last} on the validation rows, by {run.task.main}, then loss"
        run.events(Decided("weights", f"those after epoch {state.best_epoch}", why))
    elif last != state.best_epoch:
        why = f"epoch {state.best_epoch} was ahead by less than a standard error"
        run.events(Decided("weights", f"those of the last epoch, {last}", why))


def _is_last_as_good(run: Run) -> bool:
    """Whether a training that came to its end lost less than a standard error since its best.

    The last weights, after the rate has come down, are the better guess unless rows say otherwise.
    Breiman, L. et al. (1984), Classification and regression trees, section 3.4.3 (the 1 SE rule).
    """
    state = run.state
    if state.best is None:
        return True
    is_at_end = bool(run.recipe.seconds) or state.epoch >= run.recipe.epochs
    return is_at_end and state.good_epoch == state.epoch


@contextmanager
def _settings(state: State) -> Iterator[None]:
    """Threads as when the training began, the same sums each time, no denormal numbers."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    state.threads = state.threads or threads
    torch.set_num_threads(state.threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing reads such memory
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        memory.fill_uninitialized_memory = fill
        torch.set_flush_denormal(False)


def _is_over(run: Run) -> bool:
    state, recipe = run.state, run.recipe
    if recipe.seconds:
        return _is_used_up(run)
    worse = state.epoch - state.good_epoch
    stopped = bool(recipe.patience and state.best and worse >= recipe.patience)
    return stopped or state.epoch >= recipe.epochs


def _is_used_up(run: Run) -> bool:
    """Whether there is a budget and nothing of it is left."""
    steps = run.state.steps
    return bool(run.recipe.seconds and steps) and run.pace.progress(steps) >= 1


def _epoch(run: Run) -> None:
    """The rest of an epoch, or of the budget, and the evaluation after it."""
    state = run.state
    began = time.perf_counter()
    for batch in run.batches.epoch(state.epoch)[state.steps_of_epoch :]:
        if _is_used_up(run):
            break
        _step(run, batch)
        _tell(run)
        now = time.perf_counter()
        state.epoch_seconds, began = state.epoch_seconds + now - began, now
        _save_when_due(run)
    state.epoch += 1
    _judge(run)
    state.steps_of_epoch = state.rows = state.kept = state.tokens = state.padded_tokens = 0
    state.loss = 0.0
    _save_when_due(run)


def _step(run: Run, batch: Batch) -> None:
    began = time.perf_counter()
    share = rate(run.pace.progress(run.state.steps + 0.5), run.recipe.warmup)
    for group, base in zip(run.optimiser.param_groups, run.base_rates, strict=True):
        group["lr"] = base * share
    moved = [p for group in run.optimiser.param_groups for p in group["params"]]
    with made_ready(run.network):
        added = gradients(run, batch, moved)
    if run.recipe.clip_norm:
        reached = [p for p in moved if p.grad is not None]
        nn.utils.clip_grad_norm_(reached, run.recipe.clip_norm, foreach=True)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    _count(run, batch, added, time.perf_counter() - began)


def gradients(run: Run, batch: Batch, moved: Sequence[nn.Parameter]) -> Added:
    """Set the gradients of a step, the sum over its parts; give the sums over its rows."""
    if run.task.shared is None:
        return _gradients_of_parts(run, batch, moved, None)
    seed = run.recipe.seed, run.state.steps
    pieces = run.task.shared.pieces
    run.shared_parts = run.shared_parts or parts_of(pieces, run.recipe.workers)
    beside = read(run.network, pieces, run.shared_parts, run.side_by_side, seed)
    sums = _gradients_of_parts(run, batch, [*moved, beside.leaf], beside.leaf)
    slopes = run.side_by_side(lambda n: beside.slopes(n, moved), range(len(beside.parts)))
    for found in slopes:
        _add(moved, _laid_out(found, moved))
    return sums


def _gradients_of_parts(
    run: Run, batch: Batch, moved: Sequence[Tensor], beside: Tensor | None
) -> Added:
    sums = Added(0.0, 0)
    numbered = list(enumerate(batch.parts))
    for start in range(0, len(numbered), MOST_WORKERS):
        some = numbered[start : start + MOST_WORKERS]
        for added, found in run.side_by_side(
            lambda each: _gradients(run, each[0], each[1], moved, beside), some
        ):
            sums = Added(sums.loss + added.loss, sums.kept + added.kept)
            _add(moved, found)
    return sums


def _gradients(
    run: Run, number: int, part: Part, moved: Sequence[Tensor], beside: Tensor | None
) -> tuple[Added, Sequence[Tensor | None]]:
    """A part's gradients, each row weighing the same in expectation, and its sums."""
    weight = 1 / min(run.batches.batch_rows, run.batches.pieces.rows)
    with noise(run.recipe.seed, run.state.steps, number) as generator:
        outputs = row_outputs(run.network, run.batches.pieces, part)
        losses = run.task.losses_of(run.network, outputs, run.task.truth(part.rows), beside)
        weights = torch.ones_like(losses)
        if run.recipe.sampled:
            [slopes] = torch.autograd.grad(losses.sum(), outputs, retain_graph=True)
            weights = row_weights(slopes.flatten(1).norm(dim=1), generator)
        raw = torch.autograd.grad((losses * weights).sum() * weight, moved, allow_unused=True)
    sums = Added(float(losses.detach().sum()), int(weights.count_nonzero()))
    return sums, _laid_out(raw, moved)


def _laid_out(slopes: Sequence[Tensor | None], moved: Sequence[Tensor]) -> Sequence[Tensor | None]:
    pairs = zip(slopes, moved, strict=True)
    return [slope if slope is None else checkpoint.laid_out(slope, p) for slope, p in pairs]


def _add(moved: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
    """Add a part's gradients; a part whose outputs have none may not reach all that others do."""
    reached = [(p, g) for p, g in zip(moved, found, strict=True) if g is not None]
    again = [(p.grad, g) for p, g in reached if p.grad is not None]
    for parameter, gradient in reached:
        if parameter.grad is None:
            parameter.grad = gradient
    if again:
        sums, more = zip(*again, strict=True)
        torch._foreach_add_(sums, more)


def _count(run: Run, batch: Batch, added: Added, seconds: float) -> None:
    state = run.state
    state.steps += 1
    state.steps_of_epoch += 1
    state.loss += added.loss
    state.kept += added.kept
    state.rows += batch.rows
    state.tokens += batch.tokens
    state.padded_tokens += batch.padded_tokens
    run.recent = [*run.recent[-19:], (seconds, batch.rows)]
    if not state.history:
        run.pace.reserve = FORWARD_SHARE * run.task.validation.rows / _speed(run)


def _speed(run: Run) -> float:
    """Rows a second over the last steps."""
    seconds, rows = (sum(column) for column in zip(*run.recent, strict=True))
    return float(rows / seconds)


def _judge(run: Run) -> None:
    """Evaluate, write the epoch's line of history, keep the best weights."""
    state = run.state
    began = time.perf_counter()
    rows = run.task.validation.rows
    found = evaluate(run.network, run.task, run.side_by_side) if rows else None
    run.pace.reserve = 1.1 * (time.perf_counter() - began)
    line = {
        "epoch": state.epoch,
        "steps": state.steps_of_epoch,
        "rows": state.rows,
        "loss": state.loss / max(1, state.rows),
        "backward": state.kept / max(1, state.rows),
        "padding": 1 - state.tokens / max(1, state.padded_tokens),
    }
    state.history.append(line | (found.to_json() if found else {}))
    if found is None:
        return
    state.last = found.rank(run.task.main)
    if state.best is None or state.last > tuple(state.best):
        state.best, state.best_epoch = state.last, state.epoch
        state.best_error = found.error(run.task.main)
        run.best_weights = {n: w.clone() for n, w in checkpoint.weights(run.network).items()}
    if state.last[0] >= state.best[0] - state.best_error:
        state.good_epoch = state.epoch


def _save_when_due(run: Run) -> None:
    """Keep a checkpoint now and then: seldom enough to cost about a hundredth of the time."""
    now = time.perf_counter()
    if now - run.saved < max(CHECKPOINT_SECONDS, run.save_seconds / CHECKPOINT_SHARE):
        return
    save(run)
    run.saved = time.perf_counter()
    run.save_seconds = run.saved - now


def save(run: Run) -> None:
    """Keep a checkpoint."""
    run.state.seconds, run.state.started = run.pace.spent, run.pace.started
    tensors = {
        "network": checkpoint.weights(run.network),
        "optimiser": checkpoint.moments(run.optimiser),
        "best": run.best_weights,
    }
    flat = {f"{part}.{name}": t for part, named in tensors.items() for name, t in named.items()}
    checkpoint.save(run.kept, flat, asdict(run.state))


def resume(run: Run, tensors: dict[str, Tensor]) -> None:
    """Go on from a checkpoint's tensors; `run.state` is the one kept with them."""
    checkpoint.put_weights(run.network, checkpoint.only(tensors, "network."))
    checkpoint.put_moments(run.optimiser, checkpoint.only(tensors, "optimiser."))
    run.best_weights = checkpoint.only(tensors, "best.")
    run.pace.spent_before, run.pace.started = run.state.seconds, run.state.started
    run.events(Noted(f"Training goes on from step {run.state.steps:,}."))


def _tell(run: Run) -> None:
    now = time.perf_counter()
    if now - run.told < EVENT_SECONDS:
        return
    run.told = now
    state = run.state
    figures = {"loss": state.loss / max(1, state.rows), "rows_per_s": _speed(run)}
    if state.history and run.task.main in state.history[-1]:
        figures[run.task.main] = state.history[-1][run.task.main]
    total = run.pace.total_of(state.steps)
    step_seconds = sum(seconds for seconds, _ in run.recent) / len(run.recent)
    left = run.pace.seconds_left(state.steps, step_seconds)
    run.events(Progress("train", state.steps, total, "steps", left, figures))


def trial(run: Run, steps: int) -> float:
    """The validation loss after some steps from the start."""
    run.network.train()
    run.base_rates = [float(group["lr"]) for group in run.optimiser.param_groups]
    with _settings(run.state), side_by_side(run.recipe.workers) as run.side_by_side:
        for batch in run.batches.epoch(0)[:steps]:
            _step(run, batch)
        return evaluate(run.network, run.task, run.side_by_side).loss
