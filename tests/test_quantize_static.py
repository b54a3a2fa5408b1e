"""Static int8: near the plain graph, heedless of neighbours, the same bytes, one pass a product."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from modelyard.models.quantize_static import quantize_static, range_of

WIDTH, INNER = 16, 40
Batch = dict[str, NDArray[np.float32]]


def batches(seed: int, pieces: int = 8) -> list[Batch]:
    random = np.random.default_rng(seed)
    return [{"tokens": random.normal(size=(pieces, 5, WIDTH)).astype(np.float32)} for _ in range(4)]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Tokens (P, T, 16) through two layers with a bias each, and a last one, to (P, T, 3)."""
    random = np.random.default_rng(0)
    make = helper.make_node
    shapes = {"w1": (WIDTH, INNER), "b1": (INNER,), "w2": (INNER, WIDTH), "b2": (WIDTH,)}
    shapes |= {"last": (WIDTH, 3), "bias": (3,)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        make("MatMul", ["tokens", "w1"], ["p1"]),
        make("Add", ["b1", "p1"], ["s1"]),
        make("Relu", ["s1"], ["r1"]),
        make("MatMul", ["r1", "w2"], ["p2"]),
        make("Add", ["p2", "b2"], ["s2"]),
        make("MatMul", ["s2", "last"], ["p3"]),
        make("Add", ["p3", "bias"], ["outputs"]),
    ]
    sizes = [("tokens", ["pieces", "words", WIDTH]), ("outputs", ["pieces", "words", 3])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes]
    graph = helper.make_graph(nodes, "plain", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "plain.onnx")
    return tmp_path / "plain.onnx"


def said(file: Path, batch: Batch) -> NDArray[np.float32]:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, batch)[0]
    return found


def test_static_int8_is_near_the_plain_graph(plain: Path) -> None:
    file = plain.with_name("static.onnx")
    quantize_static(plain, file, batches(1))
    [batch, *_] = batches(2)
    wanted = said(plain, batch)
    assert np.abs(said(file, batch) - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_piece_heeds_no_neighbours(plain: Path) -> None:
    file = plain.with_name("static.onnx")
    quantize_static(plain, file, batches(1))
    tokens = batches(2)[0]["tokens"] * np.logspace(-1, 2, 8, dtype=np.float32)[:, None, None]
    alone = np.concatenate([said(file, {"tokens": tokens[n : n + 1]}) for n in range(8)])
    np.testing.assert_array_equal(said(file, {"tokens": tokens}), alone)


def test_tokens_become_8_bits_in_one_pass_and_a_product_adds_its_bias(plain: Path) -> None:
    file = plain.with_name("static.onnx")
    quantize_static(plain, file, batches(1))
    kinds = Counter(node.op_type for node in onnx.load(file).graph.node)
    assert kinds == {
        "QuantizeLinear": 2,
        "MatMulIntegerToFloat": 2,
        "Relu": 1,
        "MatMul": 1,
        "Add": 1,
    }


def test_the_same_rows_give_the_same_bytes(plain: Path) -> None:
    files = [plain.with_name(name) for name in ("one.onnx", "two.onnx")]
    for file in files:
        quantize_static(plain, file, batches(1))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_calibration_rows_each_token_keeps_its_own_scale(plain: Path) -> None:
    file = plain.with_name("static.onnx")
    quantize_static(plain, file, [])
    [batch, *_] = batches(2)
    wanted = said(plain, batch)
    assert np.abs(said(file, batch) - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_rare_outlier_is_cut_off() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    kept = range_of(np.r_[values, np.float32(20)])
    assert float(kept.scale) * 255 < 19.5 - values.min()
    assert range_of(np.zeros(3, np.float32)).scale == 1
