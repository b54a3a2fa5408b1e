"""Towers: a query's network and its candidates', which are one, trained side by side."""

from typing import Any

import torch
from torch import Tensor, nn

SIDES = ("query", "candidate", "negative")


class TwoTowers(nn.Module):
    """Arrays by `SIDE.NAME` to the vectors of each side, next to each other (P, S W).

    The sides are a query, its candidate, and maybe a candidate that is wrong for it.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, **arrays: Tensor) -> Tensor:
        """Vectors (P, S W)."""
        sides = (self._side(side, arrays) for side in SIDES)
        return torch.cat([vectors for vectors in sides if vectors is not None], 1)

    def _side(self, side: str, arrays: Any) -> Tensor | None:
        prefix = f"{side}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        return self.tower(**own).float() if own else None
