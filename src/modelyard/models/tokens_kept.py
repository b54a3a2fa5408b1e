"""Tokens kept: vectors of the tokens that training rows have, and no others.

A row of such tokens is read as before. Any other token is read as the one of them whose vector is
the most like its own, so a word that no training row has still says about what it said.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modelyard.models.batches import Indices
from modelyard.models.fused import towers_of
from modelyard.models.layers import copied

COMPARED = 4096
"""Vectors that are compared at once."""


class KeptTokens(nn.Embedding):
    """The vectors (U, W) of some tokens; `place` (V,) says which of them a token is read as."""

    place: Tensor

    def __init__(self, vectors: Tensor, place: Tensor):
        super().__init__(len(vectors), vectors.shape[1], _weight=vectors)
        self.register_buffer("place", place)

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors (..., W) of tokens (...)."""
        return super().forward(self.place[tokens])


def embedding_of(network: Any) -> nn.Embedding | None:
    """The vectors of a network's tokens, or None where it reads none."""
    if not hasattr(network, "get_input_embeddings"):
        return None
    found = network.get_input_embeddings()
    return found if isinstance(found, nn.Embedding) else None


def size(tower: Any) -> int:
    """How many tokens have a vector of their own; 0 where a network reads none."""
    own = embedding_of(tower)
    return 0 if own is None else own.num_embeddings


def with_tokens(network: nn.Module, used: Mapping[str, Indices]) -> nn.Module:
    """A copy in which each tower has the vectors of those tokens only that it uses."""
    found: nn.Module = copied(network)
    for name, tower in towers_of(found).items():
        whole = embedding_of(tower)
        if name in used and type(whole) is nn.Embedding:
            kept, vectors = torch.from_numpy(used[name]), whole.weight.detach()
            narrow = KeptTokens(vectors[kept].clone(), places(vectors, kept))
            tower.set_input_embeddings(narrow)
    return found


def places(vectors: Tensor, kept: Tensor) -> Tensor:
    """Which of the kept tokens (U,) each of all (V,) is read as, by their vectors (V, W)."""
    ends = normalize(vectors[kept], dim=1)
    nearest = [
        (normalize(some, dim=1) @ ends.T).argmax(1) for some in torch.split(vectors, COMPARED)
    ]
    found = torch.cat(nearest).int()
    found[kept] = torch.arange(len(kept), dtype=torch.int32)
    return found
