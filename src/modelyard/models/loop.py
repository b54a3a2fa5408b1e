"""The training loop: steps, evaluation, early stopping, the time budget, resuming.

It takes a network, an optimiser and batches as three plain objects, so that a guard may wrap
them first. The same seed, rows and number of threads give the same weights, also over a kill.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelyard.core.events import Events, Noted, Progress
from modelyard.models import checkpoint
from modelyard.models.batches import Batch, Batches, Part
from modelyard.models.evaluation import Task, evaluate, row_outputs
from modelyard.models.schedule import Pace, rate

CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 0.01
EVENT_SECONDS = 1.0
SAVING_SECONDS = 1.0
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


@dataclass
class State:
    """How far training has come; plain JSON, kept with each checkpoint."""

    steps: int = 0
    epoch: int = 0
    steps_of_epoch: int = 0
    loss: float = 0.0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    started: float | None = None
    threads: int = 0
    best: tuple[float, float] | None = None
    best_epoch: int = 0
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


def fit(run: Run) -> State:
    """Train to the end of the recipe; the network holds the best weights seen on validation."""
    run.base_rates = [float(group["lr"]) for group in run.optimiser.param_groups]
    run.network.train()
    with _settings(run.state):
        while not _is_over(run):
            _epoch(run)
    if run.state.best_epoch not in (0, run.state.epoch):
        checkpoint.put_weights(run.network, run.best_weights)
    run.network.eval()
    return run.state


@contextmanager
def _settings(state: State) -> Iterator[None]:
    """Threads as when the training began, the same sums each time, no denormal numbers."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    state.threads = state.threads or threads
    torch.set_num_threads(state.threads)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.set_flush_denormal(False)


def _is_over(run: Run) -> bool:
    state, recipe = run.state, run.recipe
    if recipe.seconds:
        return bool(state.steps) and run.pace.progress(state.steps) >= 1
    gainless = state.epoch - state.best_epoch
    stopped = bool(recipe.patience and state.best and gainless >= recipe.patience)
    return stopped or state.epoch >= recipe.epochs


def _epoch(run: Run) -> None:
    """The rest of an epoch, or of the budget, and the evaluation after it."""
    state = run.state
    for batch in run.batches.epoch(state.epoch)[state.steps_of_epoch :]:
        _step(run, batch)
        _tell(run)
        _save_when_due(run)
        if run.recipe.seconds and run.pace.progress(state.steps) >= 1:
            break
    state.epoch += 1
    _judge(run)
    state.steps_of_epoch = state.rows = state.tokens = state.padded_tokens = 0
    state.loss = 0.0
    _save_when_due(run)


def _step(run: Run, batch: Batch) -> None:
    state = run.state
    began = time.perf_counter()
    share = rate(run.pace.progress(state.steps + 0.5), run.recipe.warmup)
    for group, base in zip(run.optimiser.param_groups, run.base_rates, strict=True):
        group["lr"] = base * share
    torch.manual_seed(run.recipe.seed * 1_000_003 + state.steps)
    weight = 1 / min(run.batches.batch_rows, run.batches.pieces.rows)
    loss = sum(_backward(run, part, weight) for part in batch.parts)
    if run.recipe.clip_norm:
        moved = [p for p in run.network.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(moved, run.recipe.clip_norm, foreach=True)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    state.steps += 1
    state.steps_of_epoch += 1
    state.loss += loss
    state.rows += batch.rows
    state.tokens += batch.tokens
    state.padded_tokens += batch.padded_tokens
    seconds = time.perf_counter() - began
    state.step_seconds += seconds
    run.recent = [*run.recent[-19:], (seconds, batch.rows)]
    if not state.history:
        run.pace.reserve = SAVING_SECONDS + FORWARD_SHARE * run.task.validation.rows / _speed(run)


def _speed(run: Run) -> float:
    """Rows a second over the last steps."""
    seconds, rows = (sum(column) for column in zip(*run.recent, strict=True))
    return float(rows / seconds)


def _backward(run: Run, part: Part, weight: float) -> float:
    """Add a part's gradients; give the sum of its rows' losses."""
    row_of = torch.from_numpy(part.row_of)
    outputs = row_outputs(run.network, run.batches.pieces, part.groups, row_of, len(part.rows))
    losses = run.task.losses(outputs, run.task.truth[torch.from_numpy(part.rows)])
    total = losses.sum()
    torch.autograd.backward(total * weight)
    return float(total.detach())


def _judge(run: Run) -> None:
    """Evaluate, write the epoch's line of history, keep the best weights."""
    state = run.state
    began = time.perf_counter()
    found = evaluate(run.network, run.task) if run.task.validation.rows else None
    run.pace.reserve = SAVING_SECONDS + 1.1 * (time.perf_counter() - began)
    line = {
        "epoch": state.epoch,
        "steps": state.steps_of_epoch,
        "rows": state.rows,
        "loss": state.loss / max(1, state.rows),
        "padding": 1 - state.tokens / max(1, state.padded_tokens),
    }
    state.history.append(line | (found.to_json() if found else {}))
    if found and (state.best is None or found.rank(run.task.main) > tuple(state.best)):
        state.best, state.best_epoch = found.rank(run.task.main), state.epoch
        run.best_weights = {n: w.clone() for n, w in checkpoint.weights(run.network).items()}


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
    with _settings(run.state):
        for batch in run.batches.epoch(0)[:steps]:
            _step(run, batch)
        return evaluate(run.network, run.task).loss
