"""Moments: what a network's linear layers are given, on average over rows.

So a layer is made smaller where that changes least of what it says about such rows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modelyard.models.batches import Indices, Pieces, groups_by_length
from modelyard.models.evaluation import piece_outputs
from modelyard.models.first_token import read_first_token_only
from modelyard.models.fused import pretrained
from modelyard.models.layers import copied

MOST_PIECES = 512
RIDGE = 1e-4
"""Share of the mean that is added to a diagonal, so that what never varies divides by no zero."""


def second_moments(network: nn.Module, names: Sequence[str], pieces: Pieces) -> dict[str, Tensor]:
    """The mean of x xᵀ (K, K) over what each named linear layer is given, in float64.

    The last layer of a classifier counts the first token alone, as its graph does.
    """
    own = copied(network).eval()
    for tower in pretrained(own):
        read_first_token_only(tower)
    found: dict[str, _Mean] = {}
    for name in names:
        found[name] = _Mean(int(own.get_submodule(name).in_features))
        own.get_submodule(name).register_forward_pre_hook(found[name])
    with torch.inference_mode():
        for group in groups_by_length(evenly_spaced(pieces), pieces.lengths):
            piece_outputs(own, pieces, group)
    return {name: mean.value() for name, mean in found.items()}


def evenly_spaced(pieces: Pieces) -> Indices:
    """At most 512 pieces."""
    count = len(pieces.lengths)
    return np.linspace(0, count - 1, min(count, MOST_PIECES)).astype(np.int64)


class _Mean:
    """A hook that adds up what its layer is given."""

    def __init__(self, width: int) -> None:
        self.total = torch.zeros(width, width, dtype=torch.float64)
        self.rows = 0

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = given[0].flatten(0, -2).double()
        self.total = self.total + rows.T @ rows
        self.rows += len(rows)

    def value(self) -> Tensor:
        """The mean, a little larger on its diagonal."""
        mean: Tensor = self.total / max(1, self.rows)
        size = mean.diagonal().mean().clamp_min(1e-12)
        return mean + RIDGE * size * torch.eye(len(mean), dtype=mean.dtype)
