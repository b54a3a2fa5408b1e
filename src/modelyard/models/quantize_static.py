"""Static quantisation: int8 products whose inputs have ranges learned from calibration rows.

A product's input has one scale and one zero point, the same for each token of each row, so a row's
answer does not depend on the rows it shares a batch with, and what `quantize` does in seven passes
over the tokens is one. It depends on the rows the ranges were learned from: they belong to the
training split. Of several ranges the one with the least squared error is taken, as a few large
values are better cut off than all others made coarse (Banner et al. 2019, Post training 4-bit
quantization of convolutional networks for rapid-deployment).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from modelyard.models.quantize import CONTRIB, Rewriting, rewritten

MOST_VALUES = 200_000
"""Of an input, as many are looked at to choose its range."""
BATCH_VALUES = 8_192
"""Of an input, as many of each batch are kept until then."""
CUTS = np.linspace(1.0, 0.2, 17)
LEVELS = 255
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Range:
    """The scale and the zero point of an input in 8 bits."""

    scale: np.float32
    zero: np.uint8


def quantize_static(source: Path, file: Path, calibration: Iterable[Arrays]) -> None:
    """Write the graph in `source` with int8 products on inputs whose ranges are fixed.

    `calibration` holds batches as the graph takes them, of some hundred training rows; fewer cost
    accuracy. An input that none of them reaches keeps a scale for each token.
    """
    model = onnx.load(source)
    names = Rewriting(onnx.load(source).graph).product_inputs()
    ranges = _ranges(model, names, calibration)
    onnx.save(rewritten(model, _Static(model.graph, ranges)), file)


class _Static(Rewriting):
    """Products on inputs with a known range; the others as `quantize` has them."""

    def __init__(self, graph: GraphProto, ranges: Mapping[str, Range]):
        super().__init__(graph)
        self.ranges = ranges
        products = [node for node in graph.node if self.is_product(node)]
        own = [node.output[0] for node in products if node.input[0] in ranges]
        self.biases = {product: sums for product, sums in _biases(graph) if product in own}
        self.added = {sums for sums, _ in self.biases.values()}

    def nodes_for(self, node: NodeProto) -> Iterator[NodeProto]:
        """The nodes that take a node's place; a bias is added by its product."""
        if node.output[0] not in self.added:
            yield from super().nodes_for(node)

    def _product(self, node: NodeProto) -> Iterator[NodeProto]:
        """Tokens (..., K) × weights (K, N), with the bias (N,) that follows."""
        tokens, weight, *bias = node.input
        if tokens not in self.ranges:
            yield from super()._product(node)
            return
        [out] = node.output
        if not bias and out in self.biases:
            out, name = self.biases[out]
            bias = [name]
        yield from self._levels(tokens)
        levels, scales = self._weight(weight, transposed=self.is_transposed(node))
        names = [f"{tokens}.int8", levels, f"{tokens}.step", scales, f"{tokens}.zero"]
        names += ["", *bias] if bias else []
        yield helper.make_node("MatMulIntegerToFloat", names, [out], domain=CONTRIB)

    def _levels(self, tokens: str) -> Iterator[NodeProto]:
        """Tokens in 8 bits, in one pass."""
        if tokens in self.tokens:
            return
        self.tokens.add(tokens)
        step = self.add(f"{tokens}.step", self.ranges[tokens].scale)
        zero = self.add(f"{tokens}.zero", self.ranges[tokens].zero)
        yield helper.make_node("QuantizeLinear", [tokens, step, zero], [f"{tokens}.int8"])


def _biases(graph: GraphProto) -> Iterator[tuple[str, tuple[str, str]]]:
    """Products that nothing reads but the addition of a bias: its output, and the bias."""
    flat = {each.name for each in graph.initializer if len(each.dims) == 1}
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for product in products:
        match readers.get(product, []):
            case [NodeProto(op_type="Add") as add]:
                others = [name for name in add.input if name != product]
                if len(others) == 1 and others[0] in flat:
                    yield product, (add.output[0], others[0])


def _ranges(
    model: ModelProto, names: Sequence[str], calibration: Iterable[Arrays]
) -> dict[str, Range]:
    """The range of each of these arrays of the graph, from what they are on calibration rows."""
    given = {each.name for each in model.graph.input}
    inner = [name for name in names if name not in given]
    session = _session(model, inner)
    seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for arrays in calibration:
        found = dict(arrays) | dict(zip(inner, session.run(inner, dict(arrays)), strict=True))
        for name in names:
            seen[name].append(_some(found[name].ravel(), BATCH_VALUES))
    return {name: range_of(np.concatenate(own)) for name, own in seen.items() if own}


def _session(model: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """The graph, with these of its arrays among its outputs."""
    told = ModelProto()
    told.CopyFrom(model)
    kept = {each.name for each in told.graph.output}
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    told.graph.output.extend(each for each in more if each.name not in kept)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums in the same order, whatever the machine
    return ort.InferenceSession(told.SerializeToString(), options, ["CPUExecutionProvider"])


def _some(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most so many of the values, evenly spaced, with the least and the largest among them."""
    step = max(1, -(-len(values) // most))
    some: NDArray[np.float32] = np.r_[values[::step], values.min(initial=0), values.max(initial=0)]
    return some


def range_of(values: NDArray[np.float32]) -> Range:
    """The range in 8 bits that keeps these values with the least squared error.

    >>> kept = range_of(np.linspace(0, 2, 1000, dtype=np.float32))
    >>> int(kept.zero), round(float(kept.scale) * 255, 2)
    (0, 2.0)
    """
    values = _some(values, MOST_VALUES)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    most = max(high, -low)
    if most == 0:
        return Range(np.float32(1), np.uint8(0))
    cut = [_between(max(low, -most * cut), min(high, most * cut)) for cut in CUTS]
    return min(cut, key=lambda each: _error(values, each))


def _between(low: float, high: float) -> Range:
    """The range from `low`, at most 0, to `high`, at least 0; 0 is one of its levels."""
    scale = (high - low) / LEVELS
    return Range(np.float32(scale), np.uint8(round(-low / scale)))


def _error(values: NDArray[np.float32], kept: Range) -> float:
    zero = int(kept.zero)
    levels = np.clip(np.rint(values / kept.scale) + zero, 0, LEVELS)
    apart = (levels - zero) * kept.scale - values
    return float((apart * apart).mean())
