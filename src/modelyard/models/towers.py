"""Towers: a query's network and its candidates', which are one, trained side by side."""

from typing import Any

import torch
from torch import Tensor, nn

from modelyard.models.dropout import factors

BEGINS = 0.1
"""What a part of the history weighs at first."""
FORGOTTEN = 0.3
"""Share of what rows have seen that is left out while training."""


class TwoTowers(nn.Module):
    """Arrays by `SIDE.NAME` to the vectors of each side, next to each other (P, S W).

    The sides are a query, maybe a candidate that is wrong for it, and those that are right.
    """

    def __init__(self, tower: nn.Module, history: "History | None" = None):
        super().__init__()
        self.tower = tower
        self.history = history

    def forward(self, **arrays: Tensor) -> Tensor:
        """Vectors (P, S W), in the order in which the sides come."""
        sides = dict.fromkeys(name.partition(".")[0] for name in arrays)
        return torch.cat([self._side(side, arrays) for side in sides], 1)

    def _side(self, side: str, arrays: Any) -> Tensor:
        prefix = f"{side}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        vectors: Tensor = self.tower(**own).float()
        return vectors


class History(nn.Module):
    """What a row has seen of candidates, as a part of its vector: their vectors, and a matrix.

    So what has been added since training counts as well.
    Kabbur, S. et al. (2013), FISM: factored item similarity models for top-N recommender systems.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weights = nn.Parameter(BEGINS * torch.eye(width))

    def forward(self, is_seen: Tensor, vectors: Tensor) -> Tensor:
        """A part of vectors (B, W), from which of N candidates are seen (B, N) and theirs (N, W).

        The sum of M vectors is divided by the root of M.
        """
        kept = is_seen.float()
        if self.training:
            kept = kept * factors(kept, FORGOTTEN)
        roots = is_seen.sum(1, keepdim=True).clamp_min(1).sqrt()
        found: Tensor = kept @ vectors / roots @ self.weights
        return found
