"""Rungs: the forms of a graph, and what is known of a rung once it has been checked."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard.checks.difference import Difference
from modelyard.core.measure import Measure
from modelyard.runtime.encoded import Encoded, batches_by_length
from modelyard.runtime.graph import SHARE_TOKENS, Graph

ROUNDING = 1e-9  # a loss of one hundredth is 0.010000000000000009 as a difference of floats
Answer = Mapping[str, Any]
Make = Callable[[Path, Path, Encoded | None], None]
"""From a plain graph and, where they are asked for, training rows: a graph, written to a file."""


@dataclass(frozen=True)
class Form:
    """A form of a graph, made from the plain one.

    `is_calibrated` asks for training rows; what is not quicker than fp32 is smaller alone.
    """

    make: Make
    is_calibrated: bool = False
    is_quicker: bool = True


def share(source: Path, target: Path) -> None:
    """The same file at another place, not copied where the file system can share it."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _fp32(plain: Path, file: Path, rows: Encoded | None) -> None:
    share(plain, file)


def _bf16(plain: Path, file: Path, rows: Encoded | None) -> None:
    from modelyard.models.half import halve

    halve(plain, file)


def _int8(plain: Path, file: Path, rows: Encoded | None) -> None:
    from modelyard.models.quantize import quantize

    quantize(plain, file)


def _int8_calibrated(plain: Path, file: Path, rows: Encoded | None) -> None:
    from modelyard.models.quantize_static import quantize_static

    assert rows is not None
    graph = Graph(plain, threads=1)
    batches = batches_by_length(rows.lengths, SHARE_TOKENS)
    quantize_static(plain, file, (graph.arrays(rows.take(some)) for some in batches))


RUNGS: dict[str, Form] = {
    "fp32": Form(_fp32),
    "bf16": Form(_bf16, is_quicker=False),
    "int8": Form(_int8),
    "int8-calibrated": Form(_int8_calibrated, is_calibrated=True),
}
"""Each form of a graph, the plainest first, as core/rungs.py names them."""


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder, checked: its size, its measure, how near it is to the network."""

    name: str
    size_bytes: int
    measure: Measure
    loss: float
    """How much worse the measure is: as a share, or, of an error, as a share of the network's."""
    agreement: float | None
    """The share of equal answers; None where an answer is nothing but numbers."""
    largest_difference: float
    difference: Difference | None = None
    """How much better it is than the network on the same rows."""
    measures: tuple[Measure, ...] = ()
    """What [accept] asks for and these rows can tell."""
    about: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What its target knows, settled anew for a smaller network."""

    def to_json(self) -> dict[str, Any]:
        """The rung as compress.json has it."""
        paired = self.difference and {
            name: getattr(self.difference, name) for name in ("value", "low", "high", "unit")
        }
        return {
            "name": self.name,
            "about": self.about,
            "value": self.measure.value,
            "low": self.measure.low,
            "high": self.measure.high,
            "loss": round(self.loss, 6),
            "difference": paired,
            "agreement": self.agreement,
            "largest_difference": float(f"{self.largest_difference:.3g}"),
            "bytes": self.size_bytes,
            "rows": self.measure.rows,
        }

    def save(self, file: Path) -> None:
        """Keep it, whole or absent."""
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.rename(file)

    @classmethod
    def load(cls, file: Path) -> "Rung | None":
        """What `save` kept, or None."""
        if not file.is_file():
            return None
        told = json.loads(file.read_text(encoding="utf-8"))
        paired = told["difference"] and Difference(**told["difference"])
        measures = tuple(Measure(**each) for each in told["measures"])
        whole = {"measure": Measure(**told["measure"]), "difference": paired, "measures": measures}
        return cls(**{**told, **whole})


def loss_of(own: Measure, found: Measure) -> float:
    """What is lost of a share; of an error, which has a unit, what is added as a share of it."""
    if own.higher_is_better:
        return own.value - found.value
    return (found.value - own.value) / (own.value or 1.0)


def agreement(first: Sequence[Answer], second: Sequence[Answer]) -> float | None:
    """The share of answers that are equal but for their scores; None where those are all."""
    if all(isinstance(value, float) for value in first[0].values()):
        return None
    equal = sum(bool(_said(a) == _said(b)) for a, b in zip(first, second, strict=True))
    return equal / len(first)


def _said(value: Any) -> Any:
    """An answer, or a part of it, with 0 for each of its scores."""
    if isinstance(value, float):
        return 0.0
    if isinstance(value, Mapping):
        return {name: _said(inner) for name, inner in value.items()}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


def _scores(value: Any) -> Iterator[float]:
    """Every score within an answer, in order."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _scores(inner)


def largest_difference(first: Sequence[Answer], second: Sequence[Answer]) -> float:
    """Between scores of answers that have as many."""
    found = [0.0]
    for pair in zip(first, second, strict=True):
        ours, theirs = (list(_scores(answer)) for answer in pair)
        if len(ours) == len(theirs):
            found += [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return max(found)
