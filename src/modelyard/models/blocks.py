"""Blocks: an image network of convolutions with fewer of its blocks.

A block that is added to what comes in says little by itself, and can be left out: Veit, A. et al.
(2016), Residual networks behave like ensembles of relatively shallow networks.
"""

from torch import nn

from modelyard.models.efficientnet import blocks_in
from modelyard.models.fused import towers_of
from modelyard.models.layers import copied, evenly
from modelyard.models.vision import LiteNetwork

SHARE = 0.5


def can_be_left_out(network: nn.Module) -> bool:
    """Whether a network has blocks that can be left out."""
    own = [each for each in towers_of(network).values() if isinstance(each, LiteNetwork)]
    return any(_kept(each) != list(range(len(each.body.blocks))) for each in own)


def with_half(network: nn.Module) -> nn.Module:
    """A copy with half the blocks in each part where the size of maps stays."""
    found: nn.Module = copied(network)
    for tower in towers_of(found).values():
        if isinstance(tower, LiteNetwork):
            tower.body.blocks = nn.Sequential(*(tower.body.blocks[n] for n in _kept(tower)))
            tower.config.depth_factor *= SHARE
    return found


def _kept(network: LiteNetwork) -> list[int]:
    """Which blocks stay: of each stage the first, and others at even distances."""
    factor = network.config.depth_factor
    found, start = [], 0
    for own, fewer in zip(blocks_in(factor), blocks_in(factor * SHARE), strict=True):
        found += [start + place for place in evenly(own, fewer)]
        start += own
    return found
