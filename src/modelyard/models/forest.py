"""Forest: boosted trees as a network: arrays in, outputs out, also as an ONNX graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = "trees.safetensors"
OPSET, TREES_OPSET = 17, 3
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """What trees are told of arrays (P, ...), whose columns stand side by side by name.

    A feature is the column at `source` (F,), or, where `wanted` (F,) is 0 or more, whether the
    column holds that code.
    """

    names: tuple[str, ...]
    source: Indices
    wanted: Floats

    def of(self, arrays: Mapping[str, NDArray[Any]]) -> Floats:
        """The features of rows (P, F)."""
        columns = np.column_stack([arrays[name].astype(np.float32) for name in self.names])
        chosen = columns[:, self.source]
        found: Floats = np.where(self.wanted >= 0, chosen == self.wanted, chosen)
        return found.astype(np.float32)


class Forest(nn.Module):
    """T trees over arrays (P, ...) to outputs (P, C): a base, and what a leaf of each tree adds.

    Trees have N nodes at most. A node sends a row on to the second of its `next` (T, N, 2)
    where its `feature` is over its `threshold` (T, N); a leaf is its own child. It adds its
    `value` (T, N) in its tree's `direction` (T, C). `source` and `wanted` are those of Features,
    over the arrays called `names`.
    """

    source: Tensor
    wanted: Tensor
    feature: Tensor
    threshold: Tensor
    next: Tensor
    value: Tensor
    direction: Tensor
    base: Tensor

    def __init__(self, names: Sequence[str], tensors: Mapping[str, Tensor]):
        super().__init__()
        self.names = tuple(names)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(
        cls, features: Features, trees: Sequence[tuple[NDArray[Any], Tensor]], base: Tensor
    ) -> "Forest":
        """The forest of trees, each the nodes that scikit-learn grew, and its direction (C,)."""
        shape = len(trees), max(len(nodes) for nodes, _ in trees)
        feature, value = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        threshold = np.full(shape, np.inf, dtype=np.float32)
        children = np.tile(np.arange(shape[1])[:, None], (shape[0], 1, 2))
        for tree, (nodes, _) in enumerate(trees):
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            feature[tree, inner] = nodes["feature_idx"][inner]
            threshold[tree, inner] = not_above(nodes["num_threshold"][inner])
            children[tree, inner] = np.column_stack([nodes["left"], nodes["right"]])[inner]
            leaves = np.flatnonzero(nodes["is_leaf"])
            value[tree, leaves] = nodes["value"][leaves]
        found = {
            "source": features.source,
            "wanted": features.wanted,
            "feature": feature,
            "threshold": threshold,
            "next": children,
            "value": value,
        }
        directions = [direction for _, direction in trees]
        tensors = {name: torch.from_numpy(array) for name, array in found.items()}
        tensors["direction"] = torch.stack(directions)
        return cls(features.names, {**tensors, "base": base})

    def forward(self, **arrays: Tensor) -> Tensor:
        """Outputs (P, C)."""
        columns = torch.cat([arrays[name].float() for name in self.names], 1)
        chosen = columns[:, self.source]
        told = torch.where(self.wanted >= 0, (chosen == self.wanted).float(), chosen)
        trees = torch.arange(len(self.feature))
        node = torch.zeros(len(told), len(trees), dtype=torch.int64)
        while True:
            over = told.gather(1, self.feature[trees, node]) > self.threshold[trees, node]
            further = self.next[trees, node, over.long()]
            if torch.equal(further, node):
                break
            node = further
        outputs: Tensor = self.base + self.value[trees, node] @ self.direction
        return outputs


def not_above(thresholds: NDArray[np.float64]) -> Floats:
    """The largest float32 numbers that are not above: they part float32 values alike.

    >>> not_above(np.array([0.1])).astype(float).item() <= 0.1
    True
    """
    found = thresholds.astype(np.float32)
    below = np.nextafter(found, np.float32(-np.inf))
    rounded: Floats = np.where(found.astype(np.float64) > thresholds, below, found)
    return rounded


def save(forest: Forest, folder: Path) -> None:
    """Write a forest into a folder."""
    tensors = {name: tensor.contiguous() for name, tensor in forest.state_dict().items()}
    # one key alone: several would be written in another order each time
    save_file(tensors, folder / WEIGHTS, {"arrays": " ".join(forest.names)})


def is_in(folder: Path) -> bool:
    """Whether `save` wrote a forest into a folder."""
    return (folder / WEIGHTS).is_file()


def load(folder: Path) -> Forest:
    """The forest that `save` wrote into a folder."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "pt") as file:
        names = file.metadata()["arrays"].split()
    return Forest(names, load_file(folder / WEIGHTS))


def export(forest: Forest, example: Mapping[str, NDArray[np.generic]], file: Path) -> None:
    """Write a forest as a graph from arrays, such as `example`, to `outputs` (P, C)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    entries = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), ["pieces", array.shape[1]]
        )
        for name, array in example.items()
    ]
    outputs: list[str | int | None] = ["pieces", int(forest.base.shape[1])]
    constants = {
        "source": forest.source.numpy(),
        "wanted": forest.wanted.numpy(),
        "is_code": (forest.wanted >= 0).numpy(),
    }
    graph = helper.make_graph(
        [*_features(forest.names), *_trees(forest)],
        "trees",
        entries,
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    model = helper.make_model(graph, producer_name="modelyard", opset_imports=opsets)
    model.ir_version = 8
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


def _features(names: Sequence[str]) -> list[Any]:
    """The nodes that make features (P, F) of arrays."""
    from onnx import TensorProto, helper

    casts = [
        helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT) for name in names
    ]
    return [
        *casts,
        helper.make_node("Concat", [f"{name}.float" for name in names], ["columns"], axis=1),
        helper.make_node("Gather", ["columns", "source"], ["chosen"], axis=1),
        helper.make_node("Equal", ["chosen", "wanted"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["equal.float"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["is_code", "equal.float", "chosen"], ["features"]),
    ]


def _trees(forest: Forest) -> list[Any]:
    """The node that adds what the leaves say to the base."""
    from onnx import helper

    places = [_reached(children) for children in forest.next.numpy()]
    trees = np.repeat(np.arange(len(places)), [len(each) for each in places])
    nodes = np.concatenate(places)
    children = forest.next.numpy()[trees, nodes]
    is_leaf = children[:, 0] == nodes
    direction = forest.direction.numpy()[trees[is_leaf]]  # (L, C)
    added = forest.value.numpy()[trees[is_leaf], nodes[is_leaf]][:, None] * direction
    leaf, output = np.nonzero(direction)
    base = forest.base.numpy()[0]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["outputs"],
        domain="ai.onnx.ml",
        n_targets=len(base),
        base_values=base.tolist(),
        aggregate_function="SUM",
        nodes_treeids=trees.tolist(),
        nodes_nodeids=nodes.tolist(),
        nodes_featureids=forest.feature.numpy()[trees, nodes].tolist(),
        nodes_values=np.where(is_leaf, 0, forest.threshold.numpy()[trees, nodes]).tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, children[:, 0]).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, children[:, 1]).tolist(),
        target_treeids=trees[is_leaf][leaf].tolist(),
        target_nodeids=nodes[is_leaf][leaf].tolist(),
        target_ids=output.tolist(),
        target_weights=added[leaf, output].tolist(),
    )
    return [node]


def _reached(children: Indices) -> Indices:
    """The nodes (N,) of a tree that rows can reach, in rising order."""
    inner = children[:, 0] != np.arange(len(children))
    return np.unique(np.append(children[inner], 0))
