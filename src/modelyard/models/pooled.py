"""Pooled: a text's vector is the mean of its tokens' last states.

Reimers, N. and Gurevych, I. (2019), Sentence-BERT: sentence embeddings using siamese BERT-networks.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize


class Pooled(nn.Module):
    """Arrays (P, T) to vectors (P, W) of length 1."""

    base_model_prefix = "network"

    def __init__(self, network: Any):
        super().__init__()
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # it reads the first token, and nothing reads it
        self.network = network

    @property
    def config(self) -> Any:
        """The network's sizes."""
        return self.network.config

    @property
    def base_model(self) -> Any:
        """The network without what is over its last states."""
        return self.network

    def forward(self, attention_mask: Tensor | None = None, **arrays: Tensor) -> Tensor:
        """Vectors (P, W); no mask means that nothing is padded."""
        found = self.network(attention_mask=attention_mask, **arrays)
        return self.pooled(found.last_hidden_state, attention_mask)

    @staticmethod
    def pooled(states: Tensor, mask: Tensor | None) -> Tensor:
        """Vectors (P, W) of length 1 from states (P, T, W)."""
        if mask is None:
            return normalize(states.mean(1), dim=1)
        weights = mask[..., None].to(states.dtype)
        return normalize((states * weights).sum(1) / weights.sum(1).clamp_min(1), dim=1)

    def get_input_embeddings(self) -> Any:
        """The tokens' vectors."""
        return self.network.get_input_embeddings()

    def set_input_embeddings(self, embeddings: nn.Module) -> None:
        """Set the tokens' vectors."""
        self.network.set_input_embeddings(embeddings)

    def set_attn_implementation(self, name: str) -> None:
        """How attention is computed."""
        self.network.set_attn_implementation(name)

    def save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors, as AutoModel of transformers reads them."""
        self.network.save_pretrained(folder)
