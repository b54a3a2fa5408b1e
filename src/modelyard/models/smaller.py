"""Smaller: the ways in which a trained network is made to compute less.

Each takes any network and leaves it as it is; what it gives is a network for the same arrays with
the same outputs, so ways follow each other. `ways` says which make sense for a network.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.models import blocks, low_rank, pruned, static_text, tokens_kept
from modelyard.models.fused import towers_of
from modelyard.models.layers import most_layers, with_layers
from modelyard.models.low_rank import LowRank
from modelyard.models.static_text import StaticText
from modelyard.models.teaching import Teaching, taught
from modelyard.models.tokens_kept import KeptTokens

__all__ = ["Smaller", "Teaching", "in_hugging_face_form", "ways"]

FEWEST_LAYERS = (3, 2, 1)
NO_FORM = (KeptTokens, LowRank, StaticText)
"""What transformers has no place for."""
Used = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Smaller:
    """A way: its name as a user writes it, what it does in one clause, and what does it."""

    name: str
    about: str
    make: Callable[[nn.Module, Teaching], nn.Module]


def ways(network: nn.Module, used: Used) -> list[Smaller]:
    """The ways that make sense for a network, what leaves out the least first.

    `used` are the tokens that the training rows have, of each tower that reads tokens.
    """
    return [
        *_vocabulary(network, used),
        *_low_rank(network),
        *_pruned(network),
        *_blocks(network),
        *_layers(network),
        *_static(network, used),
    ]


def in_hugging_face_form(network: nn.Module) -> bool:
    """Whether transformers can hold the network, so that it can be saved and read again."""
    has_own = any(isinstance(module, NO_FORM) for module in network.modules())
    return not has_own and not pruned.lacks_heads(network)


def _vocabulary(network: nn.Module, used: Used) -> Iterator[Smaller]:
    towers = towers_of(network)
    own = {n: tokens for n, tokens in used.items() if n in towers}
    sizes = {n: tokens_kept.size(towers[n]) for n in own}
    if any(len(own[name]) < size for name, size in sizes.items()):
        yield Smaller(
            "vocabulary",
            "vectors of the tokens that training rows have; another is read as the nearest",
            lambda network, teaching: tokens_kept.with_tokens(network, own),
        )


def _low_rank(network: nn.Module) -> Iterator[Smaller]:
    if low_rank.thinned(network):
        yield Smaller(
            "low-rank-half",
            "each large matrix as two thinner ones, with half the multiplications",
            lambda network, teaching: taught(
                low_rank.with_low_rank(network, teaching.pieces), teaching
            ),
        )


def _pruned(network: nn.Module) -> Iterator[Smaller]:
    if pruned.attentions(network):
        yield _narrower("heads-half", "half of the attention heads", pruned.attentions, 0.5)
    if pruned.feed_forwards(network):
        for said, share in (("half", 0.5), ("quarter", 0.25)):
            about = f"a {said} of the feed-forward's width"
            yield _narrower(f"feed-forward-{said}", about, pruned.feed_forwards, share)


def _narrower(
    name: str, about: str, inner: Callable[[nn.Module], list[pruned.Inner]], share: float
) -> Smaller:
    def make(network: nn.Module, teaching: Teaching) -> nn.Module:
        student = pruned.with_narrower(network, inner(network), share, teaching.pieces)
        return taught(student, teaching)

    return Smaller(name, about, make)


def _blocks(network: nn.Module) -> Iterator[Smaller]:
    if blocks.can_be_left_out(network):
        yield Smaller(
            "blocks-half",
            "half of the blocks of convolutions",
            lambda network, teaching: taught(blocks.with_half(network), teaching),
        )


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


def _static(network: nn.Module, used: Used) -> Iterator[Smaller]:
    def make(network: nn.Module, teaching: Teaching) -> nn.Module:
        torch.manual_seed(teaching.seed)  # its matrices begin by chance
        student = static_text.with_static(network, teaching.pieces)
        return taught(student, teaching, static_text.rate_of(network))

    if static_text.readers(network):
        yield Smaller("static", "one vector for each token, and their mean for a text", make)
