"""A measured number, and what it stands on."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A measured number with its 95 % interval and the number of rows it was measured on."""

    name: str
    value: float
    low: float
    high: float
    rows: int
    higher_is_better: bool = True
    unit: str | None = None
    """What the value is in, where the name does not say it."""

    @property
    def standard_error(self) -> float:
        """What the 95 % interval says of the error's size.

        >>> round(Measure("accuracy", 0.8, 0.702, 0.898, 64).standard_error, 3)
        0.05
        """
        return (self.high - self.low) / (2 * 1.96)

    def to_json(self) -> dict[str, Any]:
        """The measure as a JSON object."""
        return asdict(self)


def cost_of_million(rows_per_s: float, cores: int, core_hour: float) -> float:
    """What a million rows cost at a rate, where an hour of a core has a price.

    >>> cost_of_million(1000, 2, 0.036)
    0.02
    """
    return round(1e6 / rows_per_s / 3600 * cores * core_hour, 6)
