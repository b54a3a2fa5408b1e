"""The head method: the backbone is frozen, so its features are computed once and reused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelyard.models.batches import Indices, Pieces, groups_by_length


@dataclass(frozen=True)
class Features:
    """Pieces whose features (P, W) stand ready."""

    features: NDArray[np.float32]
    row_of: Indices
    rows: int

    @property
    def lengths(self) -> Indices:
        """Each piece is one vector."""
        return np.ones(len(self.row_of), dtype=np.int64)

    def collate(self, indices: Indices) -> dict[str, NDArray[np.generic]]:
        """The features of the pieces at `indices`."""
        return {"features": self.features[indices]}


class BertHead(nn.Module):
    """What a BERT classifier does after its last layer, on the first token's state (P, W)."""

    def __init__(self, network: Any):
        super().__init__()
        self.pooler = network.bert.pooler
        self.dropout = network.dropout
        self.classifier = network.classifier

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (P, C)."""
        outputs: Tensor = self.classifier(self.dropout(self.pooler(features[:, None])))
        return outputs


class RobertaHead(nn.Module):
    """What a RoBERTa classifier does after its last layer, on the first token's state (P, W)."""

    def __init__(self, network: Any):
        super().__init__()
        self.classifier = network.classifier

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (P, C)."""
        outputs: Tensor = self.classifier(features[:, None])
        return outputs


HEADS = {
    "BertForSequenceClassification": BertHead,
    "RobertaForSequenceClassification": RobertaHead,
    "XLMRobertaForSequenceClassification": RobertaHead,
}


def frozen_body(
    network: Any, training: Pieces, validation: Pieces, rank: int
) -> tuple[nn.Module, Pieces, Pieces]:
    """The head alone and features in place of tokens; other networks only get frozen.

    The head shares its weights with `network`, so training it trains the network.
    """
    freeze_body(network)
    body = network.base_model
    head_of = HEADS.get(type(network).__name__)
    if head_of is None:
        return network, training, validation
    head = head_of(network)
    return head, _features(body, training), _features(body, validation)


def freeze_body(network: Any) -> None:
    """Let only the pooler and what is over the backbone move."""
    body = network.base_model
    body.requires_grad_(False)
    if getattr(body, "pooler", None) is not None:
        body.pooler.requires_grad_(True)


def _features(body: Any, pieces: Pieces) -> Features:
    """The first token's last hidden state of each piece."""
    found = np.empty((len(pieces.lengths), body.config.hidden_size), dtype=np.float32)
    body.eval()
    with torch.inference_mode():
        for group in groups_by_length(np.arange(len(found)), pieces.lengths):
            arrays = {n: torch.from_numpy(a) for n, a in pieces.collate(group).items()}
            found[group] = body(**arrays).last_hidden_state[:, 0].numpy()
    return Features(found, pieces.row_of, pieces.rows)
