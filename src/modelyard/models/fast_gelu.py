"""GELU in a graph: where it is spelled out, and the quick form that can take its place.

GELU is x times the share of a normal distribution below x, and PyTorch's export writes it as five
operators with Erf among them. With tanh in place of Erf (Hendrycks and Gimpel 2016, Gaussian error
linear units, section 2) it differs by at most 5e-4, which is a small part of a level once a layer's
values are rounded to 8 bits, and takes three fifths of the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, helper

DEPTH = 0.17
"""GELU is never less than minus this: its least value is -0.16997."""
CHAIN = ("Add", "Mul", "Mul")
"""What follows Erf, in turn."""


@dataclass(frozen=True)
class Gelu:
    """GELU of `tokens`, written as operators that give `inner` and at last `out`."""

    tokens: str
    out: str
    inner: frozenset[str]

    def quick(self) -> NodeProto:
        """The one operator that can take the place of all."""
        return helper.make_node("FastGelu", [self.tokens], [self.out], domain="com.microsoft")


def gelus(graph: GraphProto) -> Iterator[Gelu]:
    """Each GELU of a graph that is spelled out with Erf, and read nowhere half done."""
    makes = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        scaled = makes.get(node.input[0]) if node.op_type == "Erf" else None
        if scaled is not None and scaled.op_type == "Div":
            inner = [scaled.output[0], *_followed(node, readers)]
            *most, out = inner
            if len(inner) == len(CHAIN) + 2 and scaled.input[0] in _inputs(makes, inner):
                yield Gelu(scaled.input[0], out, frozenset(most))


def _followed(erf: NodeProto, readers: dict[str, list[NodeProto]]) -> Iterator[str]:
    """What Erf gives and what is made of it, as far as it is the chain's."""
    [name] = erf.output
    yield name
    for wanted in CHAIN:
        match readers.get(name, []):
            case [NodeProto(op_type=kind) as reader] if kind == wanted:
                [name] = reader.output
                yield name
            case _:
                return


def _inputs(makes: dict[str, NodeProto], names: list[str]) -> set[str]:
    """What is read to make the product before the last."""
    return set(makes[names[-2]].input)
