"""Shared: what all rows of a step are set beside, read once a step and not once a part.

The losses of parts are computed from a leaf, and what reaches it goes on to the weights at the end.
Gao, L. et al. (2021), Scaling deep contrastive learning batch size under memory limited setup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelyard.models.batches import Batches, Part, Pieces
from modelyard.models.dropout import noise
from modelyard.models.evaluation import row_outputs
from modelyard.models.workers import Map

FIRST = 1 << 20
"""The number that the noise of the first shared part has: those of a step's rows are lower."""


@dataclass(frozen=True)
class Read:
    """Outputs of the shared rows in one step: `leaf` (N, W), and those of each part."""

    leaf: Tensor
    parts: Sequence[Part]
    outputs: Sequence[Tensor]

    def slopes(self, number: int, moved: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """The gradients that reach the weights through a part, once the leaf has its own."""
        assert self.leaf.grad is not None
        own = self.leaf.grad[torch.from_numpy(self.parts[number].rows)]
        return torch.autograd.grad(self.outputs[number], moved, own, allow_unused=True)


def parts_of(pieces: Pieces, workers: int) -> Sequence[Part]:
    """All rows in parts, as each step reads them."""
    return Batches(pieces, pieces.rows, 0, workers).whole().parts


def read(
    network: nn.Module,
    pieces: Pieces,
    parts: Sequence[Part],
    side_by_side: Map,
    seed: Sequence[int],
) -> Read:
    """Read all rows for one step, with gradients."""

    def outputs(numbered: tuple[int, Part]) -> Tensor:
        number, part = numbered
        with noise(*seed, FIRST + number):
            return row_outputs(network, pieces, part)

    found = side_by_side(outputs, enumerate(parts))
    order = torch.cat([torch.from_numpy(part.rows) for part in parts]).argsort()
    leaf = torch.cat([each.detach() for each in found])[order]
    return Read(leaf.requires_grad_(), parts, found)
