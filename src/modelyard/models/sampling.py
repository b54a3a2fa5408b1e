"""Sampling: which rows of a step are worth a backward pass.

A row's outputs have a gradient whose norm bounds that of all its weights' gradients from above,
and it is known after the forward pass. Rows below the mean are kept in proportion to it, and
weigh the more; so the step's gradient is unbiased, and its variance hardly larger.

Katharopoulos, A. and Fleuret, F. (2018), Not all samples are created equal: deep learning with
importance sampling, equation 20.
"""

import torch
from torch import Tensor


def shares(norms: Tensor) -> Tensor:
    """The chance of each row (B,) to be kept, from its gradient's norm (B,).

    >>> shares(torch.tensor([0.0, 0.5, 1.0, 2.5])).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    return (norms / norms.mean().clamp_min(1e-30)).clamp_max(1.0)


def row_weights(norms: Tensor, generator: torch.Generator) -> Tensor:
    """What each row (B,) weighs: 0 where it is left out, more than 1 where it stands for others."""
    chances = shares(norms)
    drawn = torch.rand(len(norms), generator=generator) < chances
    return torch.where(drawn, 1 / chances.clamp_min(1e-30), 0.0)
