"""Quantisation: a graph's weights in 8 bits, its products in integers.

A weight matrix has one scale for each output, and what it is multiplied with one for each token,
found when the graph runs (Yao et al. 2022, ZeroQuant, section 3.2). So no calibration rows are
needed, and a row's answer does not depend on the rows it shares a batch with. With one scale for
the whole batch a logit moved by up to 0.7 (MiniLM, film reviews); so it moves by rounding alone,
5e-4 in one of 1,200 rows and 4e-7 in the others.

Convolutions are kept in 8 bits and computed in fp32: integers would need the range of each of
their inputs, from rows, and gain little where each channel is filtered by itself.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from modelyard.models.fast_gelu import DEPTH, gelus

MOST_WEIGHT = 63
"""Weights use 7 bits: with 8, processors without VNNI overflow 16 bits when they add products."""
MOST_VALUE = 127
MIDDLE = 128
FEWEST_WEIGHTS = 8192
"""Of a filter bank that is kept in 8 bits. The first ones are small, and all that follows rests on
them: with them in 8 bits a score of EfficientNet-Lite0 moved by up to 0.52 (chest X-rays), without
by up to 0.01, for a graph 3 % larger."""
CONTRIB = "com.microsoft"


def quantize(source: Path, file: Path) -> None:
    """Write the graph in `source` with int8 weights, embeddings and filters.

    The last layer stays fp32.
    """
    model = onnx.load(source)
    onnx.save(rewritten(model, Rewriting(model.graph)), file)


def rewritten(model: onnx.ModelProto, rewriting: "Rewriting") -> onnx.ModelProto:
    """The model itself, with the nodes that take the place of its own."""
    graph = model.graph
    nodes = [new for node in graph.node for new in rewriting.nodes_for(node)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    rewriting.settle()
    model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return model


class Rewriting:
    """A graph's nodes, one after the other, as nodes on 8-bit weights."""

    def __init__(self, graph: GraphProto):
        self.graph = graph
        self.known = {each.name for each in graph.initializer}
        self.weights = {each.name: each for each in graph.initializer if len(each.dims) == 2}
        self.filters = {
            each.name: each
            for each in graph.initializer
            if len(each.dims) == 4 and prod(each.dims) >= FEWEST_WEIGHTS
        }
        self.outputs = _outputs(graph)
        self.tokens: set[str] = set()
        read = set(self.product_inputs())
        self.gelus = {each.out: each for each in gelus(graph) if each.out in read}
        self.spelled = {name for each in self.gelus.values() for name in each.inner}
        self.add("int8.most", np.float32(MOST_VALUE))
        self.add("int8.one", np.float32(1))
        self.add("int8.step", np.float32(1 / MOST_VALUE))
        self.add("int8.middle", np.uint8(MIDDLE))
        self.add("int8.last", np.array([-1]))
        self.add("int8.depth_of_gelu", np.float32(DEPTH))

    def add(self, name: str, array: "NDArray[np.generic] | np.generic") -> str:
        """Keep an array in the graph, once; its name."""
        if all(each.name != name for each in self.graph.initializer):
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def nodes_for(self, node: NodeProto) -> Iterator[NodeProto]:
        """The nodes that take a node's place."""
        if node.output[0] in self.spelled:
            return
        if node.output[0] in self.gelus:
            yield self.gelus[node.output[0]].quick()
        elif node.op_type == "Gather" and node.input[0] in self.weights:
            yield from self._embedding(node)
        elif node.op_type == "Conv" and node.input[1] in self.filters:
            yield from self._convolution(node)
        elif self.is_product(node):
            yield from self._product(node)
        else:
            yield node

    def product_inputs(self) -> list[str]:
        """What is multiplied with weights, each once, in the graph's order."""
        products = filter(self.is_product, self.graph.node)
        return list(dict.fromkeys(node.input[0] for node in products))

    def settle(self) -> None:
        """Drop the weights that nothing reads any more."""
        read = {name for node in self.graph.node for name in node.input}
        kept = [each for each in self.graph.initializer if each.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    @staticmethod
    def is_transposed(node: NodeProto) -> bool:
        """Whether a product takes its weights as (N, K)."""
        return _flag(node, "transB")

    def is_product(self, node: NodeProto) -> bool:
        """Whether a node multiplies tokens with weights, and is not the graph's last layer."""
        wanted = node.op_type in ("MatMul", "Gemm") and node.input[1] in self.weights
        of_tokens = wanted and node.input[0] not in self.known  # else of weights by weights
        return of_tokens and node.output[0] not in self.outputs

    def _product(self, node: NodeProto) -> Iterator[NodeProto]:
        """Tokens (..., K) × weights (K, N), and Gemm's bias (N,)."""
        tokens, weight, *bias = node.input
        [out] = node.output
        yield from self._quantized(tokens, has_rows=node.op_type == "Gemm")
        names = self._weight(weight, transposed=self.is_transposed(node))
        scaled = f"{out}.scaled" if bias else out
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{tokens}.int8", names[0], "int8.step", names[1], "int8.middle"],
            [f"{out}.product"],
            domain=CONTRIB,
        )
        yield helper.make_node("Mul", [f"{out}.product", f"{tokens}.peak"], [scaled])
        if bias:
            yield helper.make_node("Add", [scaled, bias[0]], [out])

    def _quantized(self, tokens: str, has_rows: bool) -> Iterator[NodeProto]:
        """Each token (..., K) in 8 bits: its levels are a 127th of its peak, its largest magnitude.

        A token of zeros gets any levels; times its peak, which is 0, they are zeros again. Tokens
        (N, K), which have rows alone, are divided and rounded in one pass.
        """
        if tokens in self.tokens:
            return
        self.tokens.add(tokens)
        make, peak = helper.make_node, f"{tokens}.peak"
        yield make("ReduceMax", [tokens], [f"{tokens}.high"], axes=[-1])
        yield from self._depth(tokens)
        yield make("Max", [f"{tokens}.high", f"{tokens}.depth"], [peak])
        if has_rows:
            yield make("Mul", [peak, "int8.step"], [f"{tokens}.steps"])
            yield make("Squeeze", [f"{tokens}.steps", "int8.last"], [f"{tokens}.scale"])
            yield make("Shape", [f"{tokens}.scale"], [f"{tokens}.count"])
            yield make("Expand", ["int8.middle", f"{tokens}.count"], [f"{tokens}.middles"])
            level = [tokens, f"{tokens}.scale", f"{tokens}.middles"]
            yield make("QuantizeLinear", level, [f"{tokens}.int8"], axis=0)
            return
        yield make("Div", ["int8.most", peak], [f"{tokens}.rate"])
        yield make("Mul", [tokens, f"{tokens}.rate"], [f"{tokens}.level"])
        level = [f"{tokens}.level", "int8.one", "int8.middle"]
        yield make("QuantizeLinear", level, [f"{tokens}.int8"])

    def _depth(self, tokens: str) -> Iterator[NodeProto]:
        """How far below 0 each token goes; what GELU gives cannot go far."""
        make, depth = helper.make_node, f"{tokens}.depth"
        if tokens in self.gelus:
            yield make("Identity", ["int8.depth_of_gelu"], [depth])
            return
        yield make("ReduceMin", [tokens], [f"{tokens}.low"], axes=[-1])
        yield make("Neg", [f"{tokens}.low"], [depth])

    def _weight(self, name: str, transposed: bool) -> tuple[str, str]:
        """Weights (K, N) in 7 bits and the scale of each output (N,)."""
        weight = numpy_helper.to_array(self.weights[name])
        weight = weight.T if transposed else weight
        levels, scales = _levels(weight, 0, MOST_WEIGHT)
        return self.add(f"{name}.int8", levels), self.add(f"{name}.scale", scales[0])

    def _embedding(self, node: NodeProto) -> Iterator[NodeProto]:
        """Rows of a table (V, K): their levels times the scale of each row (V, 1)."""
        table, ids = node.input
        [out] = node.output
        levels, scales = _levels(numpy_helper.to_array(self.weights[table]), 1, MOST_VALUE)
        make = helper.make_node
        yield make("Gather", [self.add(f"{table}.levels", levels), ids], [f"{out}.int8"])
        yield make("Gather", [self.add(f"{table}.scales", scales), ids], [f"{out}.scale"])
        yield make("Cast", [f"{out}.int8"], [f"{out}.level"], to=onnx.TensorProto.FLOAT)
        yield make("Mul", [f"{out}.level", f"{out}.scale"], [out])

    def _convolution(self, node: NodeProto) -> Iterator[NodeProto]:
        """Filters (O, I, H, W) in 8 bits; opening the graph makes them fp32 again, once."""
        name, [out] = node.input[1], node.output
        levels, scales = _levels(numpy_helper.to_array(self.filters[name]), (1, 2, 3), MOST_VALUE)
        make, level, whole = helper.make_node, f"{out}.level", f"{out}.filters"
        kept = self.add(f"{name}.levels", levels)
        yield make("Cast", [kept], [level], to=onnx.TensorProto.FLOAT)
        yield make("Mul", [level, self.add(f"{name}.scales", scales)], [whole])
        convolution = NodeProto()
        convolution.CopyFrom(node)
        convolution.input[1] = whole
        yield convolution


def _outputs(graph: GraphProto) -> set[str]:
    """The graph's outputs, and sums that become them when a bias is added."""
    found = {each.name for each in graph.output}
    added = [node for node in graph.node if node.op_type == "Add" and node.output[0] in found]
    return found | {name for node in added for name in node.input}


def _flag(node: NodeProto, name: str) -> bool:
    return any(each.name == name and each.i for each in node.attribute)


def _levels(
    weight: NDArray[np.float32], axis: int | tuple[int, ...], most: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole levels of at most `most`, and the scale along `axis` that gives the weight back.

    >>> levels, scales = _levels(np.array([[0.5, -2.0]], np.float32), axis=1, most=127)
    >>> levels.tolist(), (levels * scales).round(2).tolist()
    ([[32, -127]], [[0.5, -2.0]])
    """
    peak = np.abs(weight).max(axis=axis, keepdims=True)
    scales = np.where(peak > 0, peak, 1).astype(np.float32) / np.float32(most)
    return np.rint(weight / scales).astype(np.int8), scales
