"""Smaller: the ways in which a trained network is made to compute less.

Each takes any network and leaves it as it is; what it gives is a network for the same arrays with
the same outputs, so ways follow each other. `ways` says which make sense for a network.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modelyard.models.layers import most_layers, with_layers
from modelyard.models.teaching import Teaching, taught

__all__ = ["Smaller", "Teaching", "in_hugging_face_form", "ways"]

FEWEST_LAYERS = (3, 2, 1)


@dataclass(frozen=True)
class Smaller:
    """A way: its name as a user writes it, what it does in one clause, and what does it."""

    name: str
    about: str
    make: Callable[[nn.Module, Teaching], nn.Module]


def ways(network: nn.Module, used: Mapping[str, NDArray[np.int64]]) -> list[Smaller]:
    """The ways that make sense for a network, what leaves out the least first.

    `used` are the tokens that the training rows have, of each tower that reads tokens.
    """
    return [*_layers(network)]


def in_hugging_face_form(network: nn.Module) -> bool:
    """Whether transformers can hold the network, so that it can be saved and read again."""
    return True


def _layers(network: nn.Module) -> Iterator[Smaller]:
    """Half the layers, then fewer."""
    most = most_layers(network)
    for count in sorted({most // 2, *FEWEST_LAYERS}, reverse=True):
        if 0 < count < most:
            yield _with_layers(count)


def _with_layers(count: int) -> Smaller:
    def make(network: nn.Module, teaching: Teaching) -> nn.Module:
        return taught(with_layers(network, count), teaching)

    said = "1 layer" if count == 1 else f"{count} layers"
    return Smaller(f"layers-{count}", f"{said}, which learned from all of them", make)
