"""Layers: a network with some of its layers left out, the others as they were.

The layers that stay are evenly spread, as in Sanh, V. et al. (2019), DistilBERT, a distilled
version of BERT.
"""

import copy
from typing import Any

import numpy as np
from torch import nn

from modelyard.models.fused import towers_of

COUNTS = ("num_hidden_layers", "n_layers")
"""What a configuration calls the number of its layers."""


def copied(network: nn.Module) -> Any:
    """A network with weights of its own; how another's layers are computed is forgotten."""
    found = copy.deepcopy(network)
    for module in found.modules():
        vars(module).pop("forward", None)
    return found


def layers_of(tower: Any) -> nn.ModuleList | None:
    """The layers of a transformer, which its configuration counts; None of any other network."""
    count = _count(tower)
    body = getattr(tower, "base_model", None)
    if not count or not isinstance(body, nn.Module):
        return None
    lists = [each for each in body.modules() if isinstance(each, nn.ModuleList)]
    return next((each for each in lists if len(each) == count), None)


def _count(tower: Any) -> int:
    config = getattr(tower, "config", None)
    return next((int(getattr(config, name)) for name in COUNTS if hasattr(config, name)), 0)


def most_layers(network: nn.Module) -> int:
    """How many layers the deepest transformer of a network has; 0 where it has none."""
    own = (layers_of(tower) for tower in towers_of(network).values())
    return max((len(layers) for layers in own if layers is not None), default=0)


def with_layers(network: nn.Module, count: int) -> nn.Module:
    """A copy of which no transformer has more than `count` layers."""
    found: nn.Module = copied(network)
    for tower in towers_of(found).values():
        layers = layers_of(tower)
        if layers is not None and len(layers) > count:
            _keep(tower, layers, evenly(len(layers), count))
    return found


def evenly(layers: int, count: int) -> list[int]:
    """Which layers stay: the first, the last, and others at even distances.

    >>> evenly(12, 6), evenly(6, 3), evenly(6, 2), evenly(6, 1)
    ([0, 2, 4, 7, 9, 11], [0, 2, 5], [0, 5], [0])
    """
    return [int(place) for place in np.linspace(0, layers - 1, count).round()]


def _keep(tower: Any, layers: nn.ModuleList, places: list[int]) -> None:
    own = [layers[place] for place in places]
    del layers[:]
    layers.extend(own)
    config = tower.config
    for name in COUNTS:
        if hasattr(config, name):
            setattr(config, name, len(places))
    if getattr(config, "layer_types", None):  # one for each layer
        config.layer_types = [config.layer_types[place] for place in places]
