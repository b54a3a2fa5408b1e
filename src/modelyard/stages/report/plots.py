"""Geometry of the page's plots: axes that map values to places, with ticks at round numbers."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u3400-\u9fff]")),
)


@dataclass(frozen=True)
class Axis:
    """A scale from values to places; `start` and `end` are where `low` and `high` lie."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The place of a value.

        >>> axis([0.0, 1.0], 40, 340).at(0.5)
        190.0
        """
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def label(self, tick: float) -> str:
        """A tick's text, with as many decimals as its neighbours need.

        >>> fine = axis([0.68, 0.72], 0, 100)
        >>> [fine.label(tick) for tick in fine.ticks]
        ['0.68', '0.69', '0.70', '0.71', '0.72']
        """
        step = self.ticks[1] - self.ticks[0]
        return f"{tick:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def axis(values: Iterable[float], start: float, end: float, steps: int = 5) -> Axis:
    """An axis with about `steps` steps of 1, 2 or 5 times a power of ten, over all values."""
    found = list(values)
    low, high = min(found), max(found)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / steps)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 10) for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def _round_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)


def points(x: Axis, y: Axis, pairs: Iterable[Sequence[float]]) -> str:
    """The `points` of an SVG polyline."""
    return " ".join(f"{x.at(a)},{y.at(b)}" for a, b in pairs)


def series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """The epochs in which `name` was measured, with its value.

    >>> series([{"epoch": 1, "loss": 0.6}, {"epoch": 2}], "loss")
    [(1.0, 0.6)]
    """
    return [(float(line["epoch"]), float(line[name])) for line in history if name in line]


def language_of(text: str) -> str:
    """The language whose letters choose the fonts, or an empty text where any will do.

    >>> language_of("很好看的电影"), language_of("a fine film")
    ('zh', '')
    """
    return next((name for name, letters in SCRIPTS if letters.search(text)), "")
