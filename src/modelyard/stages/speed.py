"""Speed: how fast each of several graphs answers on this machine, measured in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from modelyard.checks.latency import SHARES, quantile, timed
from modelyard.core.measure import Measure
from modelyard.runtime.runtime import Runtime

TURNS = 5
"""The slowest and the fastest of five hold the median in 94 % of cases."""
CHUNK_ROWS = 128
CHUNK_S, SINGLE_S = 0.2, 0.25
MOST_CHUNKS, MOST_SINGLES = 4, 40
"""In each turn: for so long, and so many calls at most."""


@dataclass(frozen=True)
class Speed:
    """Rows a second in bulk, the latency of one row, and the peak memory of a process."""

    measures: tuple[Measure, ...]
    memory_bytes: int | None = None

    def of(self, name: str) -> Measure:
        """The measure of this name."""
        return next(each for each in self.measures if each.name == name)

    @property
    def rows_per_s(self) -> float:
        """In bulk."""
        return self.of("rows_per_s").value

    def to_json(self) -> dict[str, Any]:
        """As the record of a stage keeps it."""
        told = [each.to_json() for each in self.measures]
        return {"measures": told, "memory_bytes": self.memory_bytes}


def rates(runtimes: Mapping[str, Runtime], rows: Sequence[Any]) -> dict[str, Measure]:
    """Rows a second of each, the median of turns; its ends are the slowest and the fastest."""
    chunk = [rows[number % len(rows)] for number in range(CHUNK_ROWS)]
    found: dict[str, list[float]] = {name: [] for name in runtimes}
    for turn in range(TURNS + 1):
        for name, runtime in runtimes.items():
            seconds = timed(runtime.predict, [chunk], CHUNK_S, MOST_CHUNKS if turn else 1)
            if turn:  # the first one warms up
                found[name].append(CHUNK_ROWS / median(seconds))
    return {
        name: Measure("rows_per_s", median(own), min(own), max(own), CHUNK_ROWS * len(own))
        for name, own in found.items()
    }


def speeds(
    runtimes: Mapping[str, Runtime], rows: Sequence[Any], memory: Mapping[str, int | None]
) -> dict[str, Speed]:
    """Rates, and the latency of one row at a time through the path that serves."""
    found = rates(runtimes, rows)
    singles: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(TURNS):
        for name, runtime in runtimes.items():
            seconds = timed(runtime.predict, [[row] for row in rows], SINGLE_S, MOST_SINGLES)
            singles[name] += [1000 * each for each in seconds]
    return {
        name: Speed((found[name], *(quantile(own, part) for part in SHARES)), memory.get(name))
        for name, own in singles.items()
    }
