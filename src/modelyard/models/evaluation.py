"""What a network gives for rows: outputs pooled over each row's pieces, losses, measures.

A network that answers for tokens gives each piece outputs (T, C); those of a row's pieces stand
end to end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from modelyard.core.measure import Measure
from modelyard.models.batches import Indices, Part, Pieces, groups_by_length
from modelyard.models.fast_bert import made_ready
from modelyard.models.workers import Map

LOSS_ROWS = 1024
"""Rows whose losses are computed at once."""
Truth = Callable[[Indices], NDArray[Any]]
"""The truths of some rows (B, ...), or of their tokens, those of a row's windows end to end and
padded to the longest row (B, T)."""
ByPiece = Sequence[NDArray[np.float32]]
"""Outputs of each piece (C,), or of its tokens (T, C)."""


@dataclass(frozen=True)
class Task:
    """What is to be learned, and how it is measured on validation rows.

    `losses` gives the loss of each row (B,) from outputs (B, C) and truths (B, ...), or, where
    tokens have their own, from (B, T, C) and (B, T). `score` measures the validation rows.
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    truth: Truth
    validation: Pieces
    validation_truth: Truth
    score: Callable[[ByPiece], Sequence[Measure]]
    main: str
    shared: "Shared | None" = None
    """What rows are set beside; its losses and its score stand for those here."""

    def losses_of(
        self, network: nn.Module, outputs: Tensor, truth: NDArray[Any], beside: Tensor | None
    ) -> Tensor:
        """The losses of rows (B,); `beside` are the outputs of what they are set beside."""
        true = torch.from_numpy(truth)
        if self.shared is None:
            return self.losses(outputs, true)
        assert beside is not None
        return self.shared.losses(network, outputs, true, beside)

    def score_of(
        self, network: nn.Module, outputs: ByPiece, beside: Tensor | None
    ) -> Sequence[Measure]:
        """The measures of the validation rows."""
        if self.shared is None:
            return self.score(outputs)
        assert beside is not None
        return self.shared.score(network, outputs, beside)


@dataclass(frozen=True)
class Shared:
    """Rows (N) that all rows of a step are set beside, and what is made of both.

    `losses` gives those of rows (B,) from the network, the rows' outputs (B, W), their truths and
    the shared outputs (N, W); `score` measures the validation rows from the same.
    """

    pieces: Pieces
    losses: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
    score: Callable[[nn.Module, ByPiece, Tensor], Sequence[Measure]]

    def outputs(self, network: nn.Module, side_by_side: Map) -> Tensor:
        """Outputs (N, W) without gradients."""
        outputs = outputs_of(network, self.pieces, side_by_side)
        return _of_rows(self.pieces, outputs, np.arange(self.pieces.rows))


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
    """Outputs of a part's rows (B, C), or of their tokens (B, T, C)."""
    outputs = [piece_outputs(network, pieces, group) for group in part.groups]
    if outputs[0].dim() == 2:
        return pooled(torch.cat(outputs), torch.from_numpy(part.row_of), len(part.rows))
    return joined(outputs, pieces.lengths, part)


def joined(outputs: Sequence[Tensor], lengths: Indices, part: Part) -> Tensor:
    """Outputs of the tokens of a part's rows (B, T, C), from those of its groups (P, T, C)."""
    tokens = torch.cat([each.flatten(0, 1) for each in outputs])  # (N, C)
    pieces = np.concatenate(part.groups)
    areas = np.concatenate(
        [
            np.full(len(group), each.shape[1])
            for group, each in zip(part.groups, outputs, strict=True)
        ]
    )
    starts = areas.cumsum() - areas
    own: list[list[Indices]] = [[] for _ in part.rows]
    for n in np.lexsort((pieces, part.row_of)):
        own[part.row_of[n]].append(np.arange(starts[n], starts[n] + lengths[pieces[n]]))
    places = [np.concatenate(each) for each in own]
    index = np.full((len(places), max(map(len, places))), len(tokens))
    for row, each in enumerate(places):
        index[row, : len(each)] = each
    padded = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])
    return padded.index_select(0, torch.from_numpy(index).flatten()).view(*index.shape, -1)


def pooled(outputs: Tensor, row_of: Tensor, rows: int) -> Tensor:
    """Outputs of rows (B, C) from those of pieces (P, C): the mean over each row's pieces."""
    if len(row_of) == rows:
        return outputs[row_of.argsort()]
    counts = torch.bincount(row_of, minlength=rows)
    summed = outputs.new_zeros(rows, outputs.shape[1]).index_add(0, row_of, outputs)
    return summed / counts[:, None]


def piece_outputs(network: nn.Module, pieces: Pieces, group: Indices) -> Tensor:
    """Outputs of pieces (P, C) or (P, T, C); a mask that masks nothing is left out."""
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
    network.eval()
    with made_ready(network):
        outputs = outputs_of(network, task.validation, side_by_side)
    beside = task.shared.outputs(network, side_by_side) if task.shared else None
    losses = torch.cat(list(_losses(network, task, outputs, beside)))
    measures = task.score_of(network, outputs, beside)
    network.train()
    return Evaluation(float(losses.mean()), measures)


def outputs_of(network: nn.Module, pieces: Pieces, side_by_side: Map) -> ByPiece:
    """A network's outputs of each piece, in their order, without gradients."""
    groups = list(groups_by_length(np.arange(len(pieces.lengths)), pieces.lengths))
    found = side_by_side(lambda group: _measured(network, pieces, group), groups)
    return by_piece(found, groups, pieces.lengths)


def by_piece(outputs: Sequence[Tensor], groups: Sequence[Indices], lengths: Indices) -> ByPiece:
    """Outputs of groups (P, C) or (P, T, C) as those of each piece, without what pads it."""
    found = {
        piece: own.numpy() if own.dim() == 1 else own[: lengths[piece]].numpy()
        for group, some in zip(groups, outputs, strict=True)
        for piece, own in zip(group.tolist(), some, strict=True)
    }
    return [found[piece] for piece in range(len(found))]


def _losses(
    network: nn.Module, task: Task, outputs: ByPiece, beside: Tensor | None
) -> Iterator[Tensor]:
    """The losses of the validation rows, some of them at a time."""
    rows = task.validation.rows
    for start in range(0, rows, LOSS_ROWS):
        some = np.arange(start, min(start + LOSS_ROWS, rows))
        own = _of_rows(task.validation, outputs, some)
        with torch.inference_mode():
            found = task.losses_of(network, own, task.validation_truth(some), beside)
        yield found


def _of_rows(pieces: Pieces, outputs: ByPiece, rows: Indices) -> Tensor:
    """Outputs of some rows (B, C), or of their tokens (B, T, C), from those of each piece."""
    first = np.searchsorted(pieces.row_of, np.arange(pieces.rows + 1))
    own = [outputs[first[row] : first[row + 1]] for row in rows]
    if outputs[0].ndim == 1:
        return torch.from_numpy(np.stack([np.mean(each, 0) for each in own]))
    return pad_sequence([torch.from_numpy(np.concatenate(each)) for each in own], True)


def _measured(network: nn.Module, pieces: Pieces, group: Indices) -> Tensor:
    with torch.inference_mode():
        return piece_outputs(network, pieces, group)
