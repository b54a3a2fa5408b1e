"""One training from start to end: method, vocabulary, precision, optimiser, loop."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelyard.core.events import Decided, Events, silent
from modelyard.core.project import Train
from modelyard.models import checkpoint, loop, methods, precision, vocabulary
from modelyard.models.batches import MOST_TOKENS, Batches, Indices, Pieces
from modelyard.models.dropout import own_noise
from modelyard.models.evaluation import Task
from modelyard.models.fast_bert import FastBert
from modelyard.models.fused import towers_of
from modelyard.models.head import BertHead, RobertaHead
from modelyard.models.loop import Recipe, Run, State
from modelyard.models.schedule import Pace, epochs_for
from modelyard.models.static_text import StaticText
from modelyard.models.tabular import Categories, Numbers
from modelyard.models.towers import History, TwoTowers
from modelyard.models.vision import LiteNetwork
from modelyard.models.workers import MOST_WORKERS

SAVED_BYTES_PER_S = 200_000_000
PAIRED_TOKENS = 2 * MOST_TOKENS
"""Of a part whose rows are each other's wrong answers: the more of them, the more is learned."""


@dataclass(frozen=True)
class Job:
    """What is trained on what: a network, training pieces, and the task they are for.

    `paired` says that a piece is a query and its candidate. `tokens` are all that the training and
    validation rows use, in rising order, of each tower that reads tokens. `kept` is the folder for
    checkpoints; `began` the moment (perf_counter) from which a budget counts.
    """

    network: Any
    training: Pieces
    task: Task
    tokens: Mapping[str, Indices]
    options: Train
    kept: Path
    events: Events
    began: float
    paired: bool = False
    history: History | None = None
    """What rows have seen of candidates, where that is learned from."""
    labels: int = 0
    """How many the target has, if it has such."""


def train(job: Job) -> State:
    """Train the job's network in place; give the decisions and the history."""
    method = methods.find(job.options.method)
    own_noise(job.network)
    network, training, validation = method.prepare(
        job.network, job.training, job.task.validation, job.options.lora_rank
    )
    if job.paired:
        network = TwoTowers(network, job.history)
    towers = towers_of(job.network)
    for name, used in job.tokens.items():
        vocabulary.narrow(towers[name], used)
    prepared = replace(
        job, network=network, training=training, task=replace(job.task, validation=validation)
    )
    run = _resumed(prepared, method) or _started(prepared, method)
    state = loop.fit(run)
    method.finish(job.network)
    for name in job.tokens:
        vocabulary.widen(towers[name])
    return state


def _started(job: Job, method: methods.Method) -> Run:
    decision = precision.decide(
        job.options.precision,
        (lambda wanted: _trial(job, method, wanted)) if job.task.validation.rows else None,
        precision.what_is_against_bf16(job.network),
    )
    decisions = {
        "method": {"method": method.name, "why": method.about},
        "learning_rate": _learning_rate(job, method),
        "precision": decision.to_json(),
    }
    if not job.options.minutes:
        decisions["epochs"] = _epochs(job)
    if _is_sampled(job.network, job.options):
        decisions["backward pass"] = {
            "backward pass": "rows below the mean gradient by chance, then weighing more",
            "why": "the gradient stays unbiased, and learned rows cost little",
        }
    for what, made in decisions.items():
        job.events(Decided(what, str(made[what]), str(made["why"])))
    return _run(job, State(decisions=decisions))


def _resumed(job: Job, method: methods.Method) -> Run | None:
    """The run of the last checkpoint, as far as it had come."""
    found = checkpoint.load(job.kept)
    if found is None:
        return None
    tensors, facts = found
    run = _run(job, State(**facts))
    loop.resume(run, tensors)
    return run


def _learning_rate(job: Job, method: methods.Method) -> dict[str, Any]:
    if job.options.learning_rate is not None:
        return {"learning_rate": job.options.learning_rate, "why": "the project file says so"}
    rate = methods.rate_of(method, job.network)
    return {"learning_rate": rate, "why": f"the default of method {method.name}"}


def _epochs(job: Job) -> dict[str, Any]:
    if job.options.epochs is not None:
        return {"epochs": job.options.epochs, "why": "the project file says so"}
    steps = Batches(job.training, job.options.batch_rows, job.options.seed).steps_in_epoch
    told = f" and there are {job.labels:,} labels" if job.labels else ""
    why = f"the rows make {steps:,} steps an epoch{told}"
    return {"epochs": epochs_for(steps, job.labels), "why": why}


def _run(job: Job, state: State) -> Run:
    options = job.options
    network = precision.use(job.network, state.decisions["precision"]["precision"])
    workers = _workers(network, state.threads or torch.get_num_threads())
    most_tokens = PAIRED_TOKENS if job.paired and not job.task.shared else MOST_TOKENS
    batches = Batches(job.training, options.batch_rows, options.seed, workers, most_tokens)
    epochs = _epochs(job)["epochs"]
    budget = options.minutes * 60
    return Run(
        network=network,
        optimiser=methods.optimiser_for(
            network, state.decisions["learning_rate"]["learning_rate"], options.weight_decay
        ),
        batches=batches,
        task=job.task,
        recipe=Recipe(
            epochs=epochs,
            seconds=budget,
            warmup=options.warmup,
            clip_norm=options.clip_norm,
            patience=options.patience,
            seed=options.seed,
            sampled=_is_sampled(network, options),
            workers=workers,
        ),
        pace=Pace(
            total_steps=epochs * batches.steps_in_epoch,
            budget=budget,
            saving=sum(p.nbytes for p in job.network.parameters()) / SAVED_BYTES_PER_S,
            began=job.began,
        ),
        state=state,
        kept=job.kept,
        events=job.events,
    )


def _workers(network: nn.Module, threads: int) -> int:
    """How many parts of a step may be computed side by side: noise must be the part's own."""
    known = (FastBert, BertHead, RobertaHead, Numbers, Categories, LiteNetwork, StaticText)
    all_known = all(isinstance(tower, known) for tower in towers_of(network).values())
    return min(MOST_WORKERS, threads) if all_known else 1


def _is_sampled(network: nn.Module, options: Train) -> bool:
    """Whether rows are sampled: only where a row without gradient costs no backward pass."""
    return options.backward == "sampled" and isinstance(network, FastBert)


def _trial(job: Job, method: methods.Method, wanted: str) -> float:
    """The validation loss after a few steps in a precision, on a copy of the network."""
    decisions = {
        "learning_rate": _learning_rate(job, method),
        "precision": {"precision": wanted},
    }
    tried = replace(
        job,
        network=copy.deepcopy(job.network),
        options=job.options.model_copy(update={"minutes": 0.0}),
        events=silent,
    )
    return loop.trial(_run(tried, State(decisions=decisions)), precision.TRIAL_STEPS)


def history_of(state: State, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What training.json tells: decisions, facts of the backbone, and each epoch."""
    return {
        **facts,
        "decisions": state.decisions,
        "kept_epoch": state.kept_epoch,
        "steps": state.steps,
        "epochs": state.history,
    }
