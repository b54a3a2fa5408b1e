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

    def to_json(self) -> dict[str, Any]:
        """The measure as a JSON object."""
        return asdict(self)
