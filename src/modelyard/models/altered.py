"""Altered: images a little different each time they are trained on, so less is learned by heart.

The noise is a part's own, as dropout's is: the same over a kill and whichever thread computes it.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from modelyard.models.dropout import own_generator

TURN = math.radians(10)
SHIFT = 0.08
ZOOM = 0.1
LIGHT = 0.2


def altered(maps: Tensor, is_mirrored: bool) -> Tensor:
    """Maps (P, 3, H, W) around 0, turned, moved, zoomed and lit differently, each by itself.

    By up to 10°, 8 % of a side, 10 %, and 20 % of brightness and contrast; mirrored left to
    right by even chance where `is_mirrored`. What comes in from outside repeats the border.
    """
    moved = grid_sample(
        maps,
        affine_grid(_moves(len(maps), is_mirrored), list(maps.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    contrast, brightness = _uniform(2, len(maps), LIGHT)[..., None, None, None]
    lit: Tensor = moved * (1 + contrast) + brightness
    return lit


def _moves(pieces: int, is_mirrored: bool) -> Tensor:
    """Where each point of an image (P, 2, 3) comes from, in affine coordinates."""
    [turn] = _uniform(1, pieces, TURN)
    [zoom] = 1 + _uniform(1, pieces, ZOOM)
    across, down = _uniform(2, pieces, 2 * SHIFT)  # a side is 2 long
    [side] = _uniform(1, pieces, 1.0)
    mirror = torch.where(side < 0, -1.0, 1.0) if is_mirrored else torch.ones(pieces)
    cosine, sine = turn.cos() * zoom, turn.sin() * zoom
    rows = [cosine * mirror, -sine, across, sine * mirror, cosine, down]
    return torch.stack(rows, 1).view(pieces, 2, 3)


def _uniform(rows: int, pieces: int, most: float) -> Tensor:
    """Numbers (rows, P) from -most to most."""
    drawn = torch.rand(rows, pieces, generator=own_generator())
    return most * (2 * drawn - 1)
