"""GELU's quick form: where it takes the place of the exact one, and where nothing is touched."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.models.fast_gelu import DEPTH, gelus

CONSTANTS = {"root": np.sqrt(2), "one": 1.0, "half": 0.5}


def graph(
    changed: dict[str, Any] | None = None,
    more: tuple[Any, ...] = (),
    outputs: tuple[str, ...] = ("out",),
) -> onnx.GraphProto:
    numbers = CONSTANTS | (changed or {})
    node = helper.make_node
    nodes = [
        node("Div", ["x", "root"], ["scaled"]),
        node("Erf", ["scaled"], ["erf"]),
        node("Add", ["erf", "one"], ["raised"]),
        node("Mul", ["x", "raised"], ["product"]),
        node("Mul", ["product", "half"], ["out"]),
        *more,
    ]
    return helper.make_graph(
        nodes,
        "gelu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(n, np.float32), k) for k, n in numbers.items()],
    )


def answers(nodes: list[onnx.NodeProto], source: onnx.GraphProto, x: np.ndarray) -> np.ndarray:
    made = onnx.GraphProto()
    made.CopyFrom(source)
    del made.node[:]
    made.node.extend(nodes)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def test_it_says_almost_what_the_exact_one_says() -> None:
    x = np.linspace(-9, 9, 20_001, dtype=np.float32)
    [found] = gelus(graph())
    assert (found.tokens, found.out) == ("x", "out")
    assert found.inner == {"scaled", "erf", "raised", "product"}
    exact = answers(list(graph().node), graph(), x)
    quick = answers([found.quick()], graph(), x)
    assert np.abs(exact - quick).max() < 5e-4
    assert -DEPTH - 1e-4 < quick.min() < exact.min()


@pytest.mark.parametrize(
    ("changed", "more", "outputs"),
    [
        ({"root": 3.0}, (), ("out",)),
        ({"one": 7.0}, (), ("out",)),
        ({"half": 0.9}, (), ("out",)),
        ({"half": [0.5, 0.5]}, (), ("out",)),
        (None, (helper.make_node("Neg", ["scaled"], ["other"]),), ("out", "other")),
        (None, (helper.make_node("Neg", ["product"], ["other"]),), ("out", "other")),
        (None, (), ("out", "raised")),
    ],
    ids=["root", "one", "half", "gate", "scaled read", "product read", "raised told"],
)
def test_what_only_looks_like_it_stays(
    changed: dict[str, Any] | None, more: tuple[Any, ...], outputs: tuple[str, ...]
) -> None:
    assert list(gelus(graph(changed, more, outputs))) == []
