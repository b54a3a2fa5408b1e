"""Dropout whose noise is a part's own: the same whichever thread computes the part, and when."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 2**16
_own = threading.local()


@contextmanager
def noise(*seed: int) -> Iterator[torch.Generator]:
    """Let this thread's dropout draw from a generator with this seed."""
    mixed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    _own.generator = torch.Generator().manual_seed(mixed >> 1)
    try:
        yield _own.generator
    finally:
        _own.generator = None


def own_generator() -> torch.Generator | None:
    """The generator that this thread's noise is drawn from, where there is one."""
    return getattr(_own, "generator", None)


def factors(like: Tensor, share: float) -> Tensor:
    """What to multiply states (N, W) with: 0 for a share of them, the rest scaled up.

    Each is drawn with 16 bits, four of them at once: a draw of its own for each took eight times
    as long, and a fifteenth of a step.
    """
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64)
    bits.random_(-(2**63), None, generator=own_generator())
    drawn = bits.view(torch.int16)[: like.numel()].view(like.shape)
    dropped = round(share * LEVELS)
    kept = torch.ge(drawn, dropped - LEVELS // 2, out=torch.empty_like(like))
    return kept.mul_(LEVELS / (LEVELS - dropped))


class PartDropout(nn.Dropout):
    """Dropout that draws from the generator of `noise`, where there is one."""

    def forward(self, states: Tensor) -> Tensor:
        """States with a share of them zero and the rest scaled up, while training."""
        if not self.training or not self.p or own_generator() is None:
            return super().forward(states)
        return states * factors(states, self.p)


def own_noise(network: nn.Module) -> None:
    """Put PartDropout in place of every dropout of a network."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, PartDropout(child.p))
