"""Tabular: networks for numbers and categories, which are trained from nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

VECTOR = 16
SMOOTH = 3.0
NARROWEST = 1e-6
WEIGHTS = "model.safetensors"
Network = TypeVar("Network", bound=nn.Module)


class Numbers(nn.Module):
    """Numbers (P, 2 N), each a value in scales and 1 where it is missing, to (P, W).

    A number is told by how far it reaches into each of K bins (Gorishniy, Y. et al. 2022, On
    embeddings for numerical features in tabular deep learning, section 3.2), and by its value,
    clipped smoothly (Holzmüller, D. et al. 2024, Better by default, section 3). `edges` (N, K + 1)
    are those of the bins.
    """

    edges: Tensor

    def __init__(self, edges: Sequence[Sequence[float]], width: int):
        super().__init__()
        self.register_buffer("edges", torch.tensor(edges, dtype=torch.float32), persistent=False)
        columns, ends = self.edges.shape
        self.layer = nn.Linear(columns * (ends + 1), width)

    def forward(self, values: Tensor) -> Tensor:
        """Outputs (P, W)."""
        value, missing = values[:, 0::2], values[:, 1::2]  # (P, N)
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        reached = (value[..., None] - low) / (high - low).clamp_min(NARROWEST)
        filled = reached.clamp(0, 1) * (1 - missing)[..., None]  # (P, N, K)
        smooth = value / (1 + (value / SMOOTH) ** 2).sqrt()
        told = torch.cat([filled, smooth[..., None], missing[..., None]], 2)
        outputs: Tensor = self.layer(told.flatten(1))
        return outputs


class Categories(nn.Module):
    """Codes (P, N) to (P, W); `sizes` (N,) are how many codes each column has."""

    first: Tensor

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        ends = torch.tensor(sizes).cumsum(0)
        self.register_buffer("first", ends - torch.tensor(sizes), persistent=False)
        self.vectors = nn.Embedding(int(ends[-1]), VECTOR)
        with torch.no_grad():
            self.vectors.weight[self.first] = 0  # the code of what no row has may never be trained
        self.layer = nn.Linear(VECTOR * len(sizes), width)

    def forward(self, codes: Tensor) -> Tensor:
        """Outputs (P, W)."""
        outputs: Tensor = self.layer(self.vectors(codes + self.first).flatten(1))
        return outputs


def with_weights(network: Network, folder: Path) -> Network:
    """The network, with the weights that `save` put into the folder, if it did."""
    if (folder / WEIGHTS).is_file():
        network.load_state_dict(load_file(folder / WEIGHTS))
    return network


def save(network: nn.Module, folder: Path) -> None:
    """Write a network's weights into a folder."""
    save_file(network.state_dict(), folder / WEIGHTS, {"format": "pt"})
