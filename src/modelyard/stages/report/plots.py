"""Geometry of the page's plots: axes that map values to places, with ticks at round numbers."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class LogAxis(Axis):
    """A scale on which equal steps are equal factors; `low` and `high` are logarithms."""

    def at(self, value: float) -> float:
        """The place of a value.

        >>> log_axis([0.01, 1.0], 0, 100).at(0.1)
        50.0
        """
        return super().at(math.log10(value))

    def label(self, tick: float) -> str:
        """A tick's text."""
        return f"{tick:g}"


@dataclass(frozen=True)
class Label:
    """Where a point's name stands, and which end of it is there: `start` or `end`."""

    x: float
    y: float
    anchor: str


def log_axis(values: Iterable[float], start: float, end: float) -> LogAxis:
    """A logarithmic axis over all values, which are above 0, with ticks at 1, 2 and 5.

    >>> log_axis([0.013, 0.3], 0, 100).ticks
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    """
    found = list(values)
    low, high = min(found), max(found)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    able = [round(digit * 10.0**power, 15) for power in powers for digit in (1, 2, 5)]
    first = max(tick for tick in able if tick <= low * (1 + 1e-9))
    last = min(tick for tick in able if tick >= high * (1 - 1e-9) and tick > first)
    ticks = tuple(tick for tick in able if first <= tick <= last)
    return LogAxis(math.log10(first), math.log10(last), start, end, ticks)


def labels(points: Sequence[tuple[float, float]], texts: Sequence[str], end: float) -> list[Label]:
    """Places beside points for their names, which lie on no point and on no other name.

    >>> labels([(50.0, 20.0), (60.0, 20.0)], ["a", "b"], 200)[0].anchor
    'end'
    """
    taken = [_Box(x - GAP, x + GAP, y - GAP, y + GAP) for x, y in points]
    found = []
    for (x, y), text in zip(points, texts, strict=True):
        label, box = next(
            (pair for pair in _places(x, y, text) if pair[1].is_free(taken, end)),
            next(_places(x, y, text)),
        )
        found.append(label)
        taken.append(box)
    return found


GAP, LETTER, LINE = 6.0, 6.3, 13.0
"""Half of a point with its margin, the width of a letter, and the height of a line."""


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    top: float
    bottom: float

    def is_free(self, taken: Iterable["_Box"], end: float) -> bool:
        """Whether it lies between 0 and `end` and on none of those that are taken."""
        return self.left >= 0 and self.right <= end and not any(map(self._is_on, taken))

    def _is_on(self, other: "_Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def _places(x: float, y: float, text: str) -> Iterator[tuple[Label, _Box]]:
    """Right and left of a point, then farther and farther above and below it."""
    width = LETTER * len(text)
    for lines in (0, -1, 1, -2, 2, -3, 3):
        height = y + lines * LINE
        for anchor, left in (("start", x + GAP + 2), ("end", x - GAP - 2 - width)):
            edge = left if anchor == "start" else left + width
            box = _Box(left, left + width, height - LINE / 2, height + LINE / 2)
            yield Label(round(edge, 1), round(height + 4, 1), anchor), box


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
