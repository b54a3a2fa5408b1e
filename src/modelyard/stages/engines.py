"""Engines: which one computes the graph of a rung soonest on this machine, measured in turn."""

from pathlib import Path

from modelyard.core.events import Decided, Progress
from modelyard.core.rungs import RungName
from modelyard.runtime.engine import ONNX_RUNTIME, OPENVINO, is_installed
from modelyard.runtime.engine_check import Compared, compared
from modelyard.runtime.graph import Graph
from modelyard.stages.choice import AS_CHEAP
from modelyard.stages.ladder import Ladder
from modelyard.stages.rungs import ROUNDING, loss_of


def quickest_engine(ladder: Ladder, name: RungName) -> tuple[str, Compared | None]:
    """The engine, and what was found where another than ONNX Runtime is installed.

    The other one is taken where it is clearly quicker, says the same, and loses no more of what
    heads the report than a rung may.
    """
    if not is_installed(OPENVINO) or not ladder.rows.truth:
        return ONNX_RUNTIME, None
    ladder.events(Progress(f"measuring {OPENVINO}", 0, 1))
    file = ladder.graph(name)
    found = compared(lambda: Graph(file, engine=OPENVINO), Graph(file), ladder.rows.encoded)
    if not found.problem and _loses(ladder, file, name):
        found = Compared(found.speed, "it loses more than compress.max_loss allows")
    is_taken = not found.problem and found.speed * AS_CHEAP >= 1
    engine = OPENVINO if is_taken else ONNX_RUNTIME
    ladder.events(Decided("engine", engine, _why(found)))
    return engine, found


def _loses(ladder: Ladder, file: Path, name: RungName) -> bool:
    own = Graph(file, engine=OPENVINO).outputs
    rows, state = ladder.rows, ladder.students.state(name.ways)
    loss = loss_of(rows.main(ladder.original), rows.main(rows.answers(own, state)))
    return loss > ladder.project.compress.max_loss + ROUNDING


def _why(found: Compared) -> str:
    if found.problem:
        return f"{OPENVINO} is installed, and {found.problem}"
    return f"{OPENVINO} does {found.speed:.2f} × the rows a second of ONNX Runtime here"
