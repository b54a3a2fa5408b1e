"""Teaching: a smaller network learns to say what the trained one says.

Hinton, G. et al. (2015), Distilling the knowledge in a neural network.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, kl_div, logsigmoid
from torch.nn.utils.rnn import pad_sequence

from modelyard.core.events import Event, Events, Progress
from modelyard.core.measure import Measure
from modelyard.core.project import Train
from modelyard.models import precision, training
from modelyard.models.batches import Batches, Indices, Pieces, groups_by_length
from modelyard.models.evaluation import ByPiece, Task, Truth
from modelyard.models.fused import towers_of

TEMPERATURE = 2.0
"""What outputs are divided by: so the teacher also says which wrong answer is the less wrong."""
DISTANCE = "distance"
FEWEST_EPOCHS, MOST_EPOCHS, FEWEST_STEPS = 4, 40, 1000
PATIENCE = 8
SCORED_ROWS = 1024


@dataclass(frozen=True)
class Teaching:
    """What a smaller network learns from: the trained network's own outputs of rows.

    `pieces` are training rows, and unlabelled ones where there are any; `outputs` what the
    teacher says of each piece: (C,), vectors (W,), or (T, C) of its tokens. The validation pieces
    steer and stop. `kind` is how outputs are compared: "classes" (softmax), "labels" (sigmoid),
    "numbers" (squared error), "vectors" (cosine) or "tokens" (softmax of each token). `minutes`
    is the budget of one network; 0 for as long as it improves, within limits. `kept` is a folder
    for its checkpoints.
    """

    pieces: Pieces
    outputs: ByPiece
    validation: Pieces
    validation_outputs: ByPiece
    kind: str
    minutes: float
    seed: int
    events: Events
    kept: Path


@dataclass(frozen=True)
class EachPiece:
    """Pieces that are each a row of their own: what is said of each can be learned."""

    pieces: Pieces

    @property
    def row_of(self) -> Indices:
        """The row of each piece."""
        return np.arange(len(self.pieces.lengths))

    @property
    def lengths(self) -> Indices:
        """The length of each piece."""
        return self.pieces.lengths

    @property
    def rows(self) -> int:
        """As many as pieces."""
        return len(self.pieces.lengths)

    def collate(self, indices: Indices) -> dict[str, NDArray[np.generic]]:
        """The pieces at `indices` as arrays."""
        return self.pieces.collate(indices)


def taught(student: nn.Module, teaching: Teaching, learning_rate: float | None = None) -> nn.Module:
    """The student, trained in place to give the teacher's outputs; in evaluation mode.

    `learning_rate` is that of full training where it is not given.
    """
    torch.manual_seed(teaching.seed)
    teaching.kept.mkdir(parents=True, exist_ok=True)
    pieces, validation = EachPiece(teaching.pieces), EachPiece(teaching.validation)
    student.requires_grad_(True)
    training.train(
        training.Job(
            network=student,
            training=pieces,
            task=_task(teaching, validation),
            tokens=_tokens(student, (pieces, validation)),
            options=_options(student, teaching, pieces, learning_rate),
            kept=teaching.kept,
            events=_progress_only(teaching.events),
            began=time.perf_counter(),
        )
    )
    vars(student).pop("forward", None)  # the one that computed in bf16
    return student.eval()


def _options(
    student: nn.Module, teaching: Teaching, pieces: EachPiece, learning_rate: float | None
) -> Train:
    """How the weights are moved; more epochs than for labels, as a teacher says more of a row."""
    against = precision.what_is_against_bf16(student)
    wanted = Train.model_validate(
        {
            "minutes": teaching.minutes,
            "learning_rate": learning_rate,
            "dropout": 0.0,
            "patience": PATIENCE,
            "precision": "fp32" if against else "bf16",
            "seed": teaching.seed,
        }
    )
    steps = max(1, Batches(pieces, wanted.batch_rows, teaching.seed).steps_in_epoch)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / steps)))
    return wanted.model_copy(update={"epochs": epochs})


def _progress_only(events: Events) -> Events:
    """How far it has come is told; the many small decisions of a training are not."""

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            events(event)

    return tell


def _task(teaching: Teaching, validation: Pieces) -> Task:
    distances = DISTANCES[teaching.kind]
    return Task(
        losses=distances,
        truth=_truth(teaching.outputs),
        validation=validation,
        validation_truth=_truth(teaching.validation_outputs),
        score=lambda outputs: [_distance(outputs, teaching.validation_outputs, distances)],
        main=DISTANCE,
    )


def _truth(outputs: ByPiece) -> Truth:
    """The teacher's outputs of some pieces; those of tokens are padded with NaN."""
    return lambda rows: _stacked([outputs[row] for row in rows]).numpy()


def _stacked(outputs: ByPiece, filling: float = torch.nan) -> Tensor:
    """Outputs of pieces (B, C), or of their tokens (B, T, C)."""
    own = [torch.from_numpy(np.asarray(each, dtype=np.float32)) for each in outputs]
    if own[0].dim() == 1:
        return torch.stack(own)
    return pad_sequence(own, batch_first=True, padding_value=filling)


def _distance(
    outputs: ByPiece, wanted: ByPiece, distances: Callable[[Tensor, Tensor], Tensor]
) -> Measure:
    """The mean distance of outputs from the teacher's, with its interval."""
    found = torch.cat(
        [
            distances(
                _stacked(outputs[start : start + SCORED_ROWS], 0.0),
                _stacked(wanted[start : start + SCORED_ROWS]),
            )
            for start in range(0, len(wanted), SCORED_ROWS)
        ]
    )
    mean = float(found.mean())
    error = float(found.std()) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    return Measure(DISTANCE, mean, mean - 1.96 * error, mean + 1.96 * error, len(found), False)


def _of_classes(outputs: Tensor, wanted: Tensor) -> Tensor:
    """The Kullback-Leibler divergence (B,) of what is said of C classes (B, C)."""
    said, told = ((each / TEMPERATURE).log_softmax(-1) for each in (outputs, wanted))
    return kl_div(said, told, reduction="none", log_target=True).sum(-1) * TEMPERATURE**2


def _of_labels(outputs: Tensor, wanted: Tensor) -> Tensor:
    """The same of each label (B, C) by itself, summed over them (B,)."""
    said, told = outputs / TEMPERATURE, wanted / TEMPERATURE
    each = [
        logsigmoid(sign * told).exp() * (logsigmoid(sign * told) - logsigmoid(sign * said))
        for sign in (1, -1)
    ]
    return (each[0] + each[1]).sum(-1) * TEMPERATURE**2


def _of_numbers(outputs: Tensor, wanted: Tensor) -> Tensor:
    return (outputs - wanted).square().mean(-1)


def _of_vectors(outputs: Tensor, wanted: Tensor) -> Tensor:
    return 1 - cosine_similarity(outputs, wanted, dim=-1)


def _of_tokens(outputs: Tensor, wanted: Tensor) -> Tensor:
    """The mean (B,) over the tokens of a row; where the teacher says NaN there is none."""
    stands = ~wanted[..., 0].isnan()
    each = _of_classes(outputs, wanted.nan_to_num(0.0)) * stands
    return each.sum(1) / stands.sum(1).clamp_min(1)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": _of_classes,
    "labels": _of_labels,
    "numbers": _of_numbers,
    "vectors": _of_vectors,
    "tokens": _of_tokens,
}


def _tokens(student: nn.Module, parts: Sequence[Pieces]) -> dict[str, Indices]:
    """The tokens that pieces have, in rising order, of each tower that reads such."""
    reads = {n for n, tower in towers_of(student).items() if hasattr(tower, "get_input_embeddings")}
    found: dict[str, list[NDArray[Any]]] = {}
    for pieces in parts:
        for group in groups_by_length(np.arange(len(pieces.lengths)), pieces.lengths):
            for name, array in pieces.collate(group).items():
                tower, _, own = name.rpartition(".")
                if own == "input_ids" and tower in reads:
                    found.setdefault(tower, []).append(np.unique(array))
    return {n: np.unique(np.concatenate(own)).astype(np.int64) for n, own in found.items()}
