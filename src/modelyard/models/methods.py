"""Methods: how the weights are moved. One entry each in METHODS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelyard.models import lora
from modelyard.models.batches import Pieces
from modelyard.models.fast_bert import FastBert, is_possible
from modelyard.models.head import frozen_body

Prepared = tuple[nn.Module, Pieces, Pieces]


@dataclass(frozen=True)
class Method:
    """A way to move the weights.

    `prepare` takes the network, the training and the validation pieces and gives what the loop
    trains on instead; `finish` folds what was learned back into the network it was given.
    """

    name: str
    about: str
    learning_rate: float
    prepare: Callable[[nn.Module, Pieces, Pieces, int], Prepared]
    finish: Callable[[nn.Module], None]


def _full(network: nn.Module, training: Pieces, validation: Pieces, rank: int) -> Prepared:
    """Every weight, in the fast form of the network where there is one."""
    moved = FastBert(network) if is_possible(network) else network
    return moved, training, validation


def _nothing(network: nn.Module) -> None:
    return None


METHODS = {
    method.name: method
    for method in (
        Method("full", "every weight moves", 1e-4, _full, _nothing),
        Method("head", "the backbone is frozen", 1e-3, frozen_body, _nothing),
        Method("lora", "low-rank matrices, merged at the end", 5e-4, lora.prepare, lora.finish),
    )
}


def find(name: str) -> Method:
    """The method called `name`, one of those that [train] knows."""
    return METHODS[name]


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that move, in two groups: matrices decay; biases, norms, embeddings do not."""
    embeddings = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decaying = [p for p in moving if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in moving if p.ndim <= 1 or id(p) in embeddings]
    groups = [(decaying, weight_decay), (others, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def optimiser_for(
    network: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the weights that move.

    Loshchilov, I. and Hutter, F. (2019), Decoupled weight decay regularization.
    """
    groups = parameter_groups(network, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
