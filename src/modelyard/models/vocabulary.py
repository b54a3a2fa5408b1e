"""Vocabulary: train only the vectors of the tokens that the rows use.

Exact: the vector of a token that no row uses gets no gradient, and embeddings do not decay. It
saves the dense gradient and the optimiser's work on the rest, often half of all weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelyard.models.batches import Indices


class NarrowEmbedding(nn.Embedding):
    """The vectors (U, W) of the tokens `used`; `place` (V,) says where a token's vector is."""

    def __init__(self, whole: nn.Embedding, used: Indices):
        self_used = torch.from_numpy(used)
        place = torch.zeros(whole.num_embeddings, dtype=torch.int64)
        place[self_used] = torch.arange(len(used))
        fixed = whole.padding_idx
        padding = int(place[fixed]) if fixed is not None and fixed in used else None
        vectors = whole.weight.detach()[self_used].clone()
        super().__init__(len(used), whole.embedding_dim, padding, _weight=vectors)
        self.used, self.place = self_used, place
        self.whole = [whole]  # in a list, so that its weights are not this module's

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors (..., W) of tokens (...)."""
        return super().forward(self.place[tokens])


def narrow(network: Any, used: Indices) -> None:
    """Keep the vectors of the `used` tokens only, where the network's embedding moves."""
    whole = _embedding(network)
    if type(whole) is nn.Embedding and whole.weight.requires_grad:
        network.set_input_embeddings(NarrowEmbedding(whole, used))


def widen(network: Any) -> None:
    """Undo `narrow`, with the vectors as trained."""
    narrowed = _embedding(network)
    if isinstance(narrowed, NarrowEmbedding):
        [whole] = narrowed.whole
        with torch.no_grad():
            whole.weight[narrowed.used] = narrowed.weight
        network.set_input_embeddings(whole)


def _embedding(network: Any) -> Any:
    """The embedding of a network's tokens, or None where it reads none."""
    return network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
