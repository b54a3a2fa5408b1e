"""Engine check: whether another engine still says the same as ONNX Runtime, and how much sooner."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.runtime.encoded import Encoded, Ragged
from modelyard.runtime.engine import ONNX_RUNTIME
from modelyard.runtime.graph import Graph
from modelyard.runtime.runtime import Runtime

TURNS = 5
MOST_APART = 0.2
"""Of outputs' size: what 8 bits that are rounded elsewhere leave far below."""
AS_QUICK = 0.9
"""Of ONNX Runtime's rate at start-up: measured again, either could be the quicker."""


@dataclass(frozen=True)
class Compared:
    """An engine beside ONNX Runtime: its rate as a multiple, or why it cannot be used."""

    speed: float
    problem: str = ""


def compared(own: Callable[[], Graph], plain: Graph, pieces: Encoded) -> Compared:
    """Both on the same pieces, in turn; an engine that fails or says something else is told."""
    try:
        graph = own()
        apart = _apart(graph, plain, pieces)
    except Exception as error:  # noqa: BLE001 – whatever an engine raises, the other one serves
        return Compared(0.0, f"it cannot compute this graph ({str(error).strip()[:200]})")
    if not apart <= MOST_APART:
        return Compared(0.0, "it says something else of the same rows")
    own_s, plain_s = _seconds([graph, plain], pieces)
    return Compared(plain_s / own_s)


def _apart(own: Graph, plain: Graph, pieces: Encoded) -> float:
    """How far outputs are apart on average, as a share of their own size."""
    ours, theirs = (_values(each.outputs(pieces)) for each in (own, plain))
    return float(np.abs(ours - theirs).mean()) / max(float(np.abs(theirs).mean()), 1e-12)


def _values(outputs: "NDArray[np.float32] | Ragged") -> NDArray[Any]:
    return outputs.values if isinstance(outputs, Ragged) else outputs


def _seconds(graphs: list[Graph], pieces: Encoded) -> list[float]:
    """The median seconds of each, in turn."""
    found: list[list[float]] = [[] for _ in graphs]
    for _ in range(TURNS):
        for graph, own in zip(graphs, found, strict=True):
            began = perf_counter()
            graph.outputs(pieces)
            own.append(perf_counter() - began)
    return [median(own) for own in found]


def as_quick_here(
    runtime: Runtime, plain: Callable[[], Graph], pieces: Callable[[], Encoded]
) -> tuple[Runtime, str]:
    """What serves on this machine, and in a sentence why it is not what the release was made with.

    The engine that a release names is kept where it is installed, says what ONNX Runtime says of
    these pieces, and is no slower; else ONNX Runtime serves.
    """
    wanted = runtime.spec.engine
    if wanted == ONNX_RUNTIME:
        return runtime, ""
    other = plain()
    found = Compared(0.0, "it is not installed here")
    if runtime.graph.engine == wanted:
        found = compared(lambda: runtime.graph, other, pieces())
    if not found.problem and found.speed >= AS_QUICK:
        return runtime, ""
    problem = found.problem or f"here it does {found.speed:.2f} × the rows a second"
    told = f"The release was made with {wanted}, and {problem}: ONNX Runtime serves instead."
    return replace(runtime, graph=other), told
