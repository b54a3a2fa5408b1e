"""Towers: a query's network and its candidates', which are one, trained side by side."""

from typing import Any

import torch
from torch import Tensor, nn


class TwoTowers(nn.Module):
    """Arrays by `SIDE.NAME` to the vectors of each side, next to each other (P, S W).

    The sides are a query, maybe a candidate that is wrong for it, and those that are right.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, **arrays: Tensor) -> Tensor:
        """Vectors (P, S W), in the order in which the sides come."""
        sides = dict.fromkeys(name.partition(".")[0] for name in arrays)
        return torch.cat([self._side(side, arrays) for side in sides], 1)

    def _side(self, side: str, arrays: Any) -> Tensor:
        prefix = f"{side}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        vectors: Tensor = self.tower(**own).float()
        return vectors
