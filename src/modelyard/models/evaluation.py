"""What a network gives for rows: outputs pooled over each row's pieces, losses, measures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelyard.core.measure import Measure
from modelyard.models.batches import Indices, Part, Pieces, groups_by_length
from modelyard.models.workers import Map


@dataclass(frozen=True)
class Task:
    """What is to be learned, and how it is measured on validation rows.

    `losses` gives the loss of each row (B,) from outputs (B, C) and truth (B,).
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    truth: Tensor
    validation: Pieces
    validation_truth: Tensor
    score: Callable[[NDArray[np.float32]], Sequence[Measure]]
    main: str


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and measures on the validation rows."""

    loss: float
    measures: Sequence[Measure]

    def rank(self, main: str) -> tuple[float, float]:
        """Better evaluations rank higher: by the main measure, ties by the loss."""
        measure = self._measure(main)
        return (measure.value if measure.higher_is_better else -measure.value), -self.loss

    def error(self, main: str) -> float:
        """The standard error of the main measure."""
        return self._measure(main).standard_error

    def _measure(self, name: str) -> Measure:
        return next(each for each in self.measures if each.name == name)

    def to_json(self) -> dict[str, Any]:
        """Loss and measures by name."""
        values = {each.name: each.value for each in self.measures}
        return {"validation_loss": self.loss, **values}


def row_outputs(network: nn.Module, pieces: Pieces, part: Part) -> Tensor:
    """Outputs of a part's rows (B, C)."""
    outputs = torch.cat([piece_outputs(network, pieces, group) for group in part.groups])
    return pooled(outputs, torch.from_numpy(part.row_of), len(part.rows))


def pooled(outputs: Tensor, row_of: Tensor, rows: int) -> Tensor:
    """Outputs of rows (B, C) from those of pieces (P, C): the mean over each row's pieces."""
    if len(row_of) == rows:
        return outputs[row_of.argsort()]
    counts = torch.bincount(row_of, minlength=rows)
    summed = outputs.new_zeros(rows, outputs.shape[1]).index_add(0, row_of, outputs)
    return summed / counts[:, None]


def piece_outputs(network: nn.Module, pieces: Pieces, group: Indices) -> Tensor:
    """Outputs of pieces (P, C); a mask that masks nothing is left out."""
    arrays = {name: torch.from_numpy(array) for name, array in pieces.collate(group).items()}
    masks = [name for name in arrays if name.rpartition(".")[2] == "attention_mask"]
    for name in masks:
        if bool(arrays[name].all()):
            del arrays[name]
    found = network(**arrays)
    outputs: Tensor = getattr(found, "logits", found)
    return outputs.float()


def evaluate(network: nn.Module, task: Task, side_by_side: Map) -> Evaluation:
    """Measure a network on the validation rows; it is in training mode again afterwards."""
    pieces = task.validation
    network.eval()
    groups = list(groups_by_length(np.arange(len(pieces.lengths)), pieces.lengths))
    found = side_by_side(lambda group: _measured(network, pieces, group), groups)
    row_of = torch.from_numpy(pieces.row_of[np.concatenate(groups)])
    outputs = pooled(torch.cat(found), row_of, pieces.rows)
    network.train()
    return Evaluation(
        float(task.losses(outputs, task.validation_truth).mean()), task.score(outputs.numpy())
    )


def _measured(network: nn.Module, pieces: Pieces, group: Indices) -> Tensor:
    with torch.inference_mode():
        return piece_outputs(network, pieces, group)
