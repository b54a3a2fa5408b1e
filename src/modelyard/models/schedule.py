"""How far training has come, by steps or by the clock, and the learning rate at each moment."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FEWEST_EPOCHS = 2
MOST_EPOCHS = 10
FEWEST_STEPS = 250
STEPS_PER_LABEL = 24
"""A label is learned from its own rows, and of many labels each has few in a step."""


def epochs_for(steps_in_epoch: int, labels: int = 0) -> int:
    """How often to pass over the rows: twice, and more where that would be few steps.

    >>> [epochs_for(steps) for steps in (500, 125, 51, 4)], epochs_for(306, labels=77)
    ([2, 2, 5, 10], 7)
    """
    fewest = max(FEWEST_STEPS, STEPS_PER_LABEL * labels)
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(fewest / steps_in_epoch)))


def rate(progress: float, warmup: float) -> float:
    """The share of the full learning rate: linear up over the warm-up, then linear down to 0.

    >>> [round(rate(p, 0.1), 2) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return max(0.0, (1.0 - progress) / (1.0 - warmup))


@dataclass
class Pace:
    """Progress from 0 to 1: by steps, or with a budget by seconds.

    With a budget training ends, its rate decayed to 0, when what is left is just enough to
    evaluate (`reserve`) and save (`saving`). All times are seconds.
    """

    total_steps: int
    budget: float
    saving: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    spent_before: float = 0.0
    """Spent before this process took over."""
    began: float = field(default_factory=time.perf_counter)
    started: float | None = None
    """Spent when the first step began; None before."""
    reserve: float = 0.0

    @property
    def spent(self) -> float:
        """Seconds spent so far, over all processes."""
        return self.spent_before + self.clock() - self.began

    def progress(self, steps: float) -> float:
        """How far training has come after `steps` steps."""
        if not self.budget:
            return min(1.0, steps / self.total_steps)
        if self.started is None:
            self.started = self.spent
        available = self.budget - self.reserve - self.saving - self.started
        return min(1.0, (self.spent - self.started) / max(available, 1e-9))

    def total_of(self, steps: int) -> int:
        """How many steps there will be, as far as is known after `steps` of them."""
        if not self.budget:
            return self.total_steps
        return max(steps, round(steps / max(self.progress(steps), 1e-9)))

    def seconds_left(self, steps: int, step_seconds: float) -> float:
        """Seconds until the end, with evaluation, where a step takes `step_seconds`."""
        if self.budget:
            return max(0.0, self.budget - self.spent)
        return (self.total_steps - steps) * step_seconds + self.reserve + self.saving
