"""Methods: how the weights are moved. One entry each in METHODS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelyard.models import lora
from modelyard.models.batches import Pieces
from modelyard.models.fast_bert import fast
from modelyard.models.fused import Fused, pretrained
from modelyard.models.head import freeze_body, frozen_body
from modelyard.models.towers import TwoTowers
from modelyard.models.vision import LiteNetwork

FASTER = 10
"""Of what is new, and of convolutions, which fixed norms hold in place, against a transformer."""
Prepared = tuple[nn.Module, Pieces, Pieces]


@dataclass(frozen=True)
class Method:
    """A way to move the weights.

    `learning_rate` is for transformers and tables, `of_convolutions` for a network of such.
    `prepare` takes the network, the training and the validation pieces and gives what the loop
    trains on instead; `finish` folds what was learned back into the network it was given.
    """

    name: str
    about: str
    learning_rate: float
    of_convolutions: float
    prepare: Callable[[nn.Module, Pieces, Pieces, int], Prepared]
    finish: Callable[[nn.Module], None]


def _full(network: nn.Module, training: Pieces, validation: Pieces, rank: int) -> Prepared:
    """Every weight, in the fast form of each network where there is one."""
    moved = network.with_towers(fast) if isinstance(network, Fused) else fast(network)
    return moved, training, validation


def _head(network: nn.Module, training: Pieces, validation: Pieces, rank: int) -> Prepared:
    """The features of a network that is alone are computed once; those of towers, each time."""
    if not isinstance(network, Fused):
        return frozen_body(network, training, validation, rank)
    for tower in pretrained(network):
        freeze_body(tower)
    return network, training, validation


def _lora(network: nn.Module, training: Pieces, validation: Pieces, rank: int) -> Prepared:
    """Low-rank matrices in each pre-trained network; all that is new moves whole."""
    for tower in pretrained(network):
        lora.prepare(tower, rank)
    return network, training, validation


def _merge(network: nn.Module) -> None:
    for tower in pretrained(network):
        lora.finish(tower)


def _nothing(network: nn.Module) -> None:
    return None


METHODS = {
    method.name: method
    for method in (
        Method("full", "every weight moves", 1e-4, 1e-3, _full, _nothing),
        Method("head", "the backbone is frozen", 1e-3, 1e-3, _head, _nothing),
        Method("lora", "low-rank matrices, merged at the end", 5e-4, 2e-3, _lora, _merge),
    )
}


def find(name: str) -> Method:
    """The method called `name`, one of those that [train] knows."""
    return METHODS[name]


def parameter_groups(
    network: nn.Module, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """The weights that move, in groups: matrices decay; biases, norms, embeddings do not.

    What is new beside pre-trained networks (towers for tables, the head over all) moves faster,
    and so do convolutions.
    """
    embeddings = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    begun = {id(p) for tower in _begun(network) for p in tower.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and id(parameter) not in embeddings
            groups.setdefault((id(parameter) not in begun, not decays), []).append(parameter)
    return [
        {
            "params": params,
            "lr": learning_rate * (FASTER if is_new else 1),
            "weight_decay": 0.0 if is_still else weight_decay,
        }
        for (is_new, is_still), params in sorted(groups.items(), key=lambda group: group[0])
    ]


def _begun(network: nn.Module) -> list[nn.Module]:
    """What takes the rate as it is: pre-trained transformers, or a network that is no fused one."""
    if isinstance(network, TwoTowers):
        return _begun(network.tower)
    if not isinstance(network, Fused):
        return [network]
    return [tower for tower in pretrained(network) if not isinstance(tower, LiteNetwork)]


def rate_of(method: Method, network: nn.Module) -> float:
    """The learning rate of a method where none is given."""
    is_of_convolutions = isinstance(network, LiteNetwork)
    return method.of_convolutions if is_of_convolutions else method.learning_rate


def optimiser_for(
    network: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the weights that move.

    Loshchilov, I. and Hutter, F. (2019), Decoupled weight decay regularization.
    """
    groups = parameter_groups(network, learning_rate, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
