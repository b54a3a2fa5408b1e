"""Half: a graph's weights in bfloat16, half the bytes, and its arithmetic in fp32 as before.

The weights become fp32 again when the graph is opened, so it saves size on disk and over the
network, and neither time nor memory: processors without bf16 products run it like any other.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

FEWEST_WEIGHTS = 1024
"""Of an array that is kept in half; biases and norms are a thousandth of all bytes."""


def halve(source: Path, file: Path) -> None:
    """Write the graph in `source` with its large weights in bfloat16."""
    model = onnx.load(source)
    casts = list(_halved(model.graph))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)


def _halved(graph: GraphProto) -> Iterator[NodeProto]:
    """Put each large weight in half in its place; the nodes that make it fp32 again."""
    for place, weight in enumerate(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or prod(weight.dims) < FEWEST_WEIGHTS:
            continue
        name, half = weight.name, f"{weight.name}.bf16"
        levels = _rounded(numpy_helper.to_array(weight))
        kept = helper.make_tensor(
            half, TensorProto.BFLOAT16, weight.dims, levels.tobytes(), raw=True
        )
        graph.initializer[place].CopyFrom(kept)
        yield helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)


def _rounded(weight: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float's bits, rounded to the nearest, ties to even.

    >>> [hex(each) for each in _rounded(np.array([1.0, 1.01, -2.0], np.float32))]
    ['0x3f80', '0x3f81', '0xc000']
    """
    bits = np.ascontiguousarray(weight, dtype="<f4").view("<u4")
    found: NDArray[np.uint16] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return found
