"""Export: a network as an ONNX graph that runs on any processor."""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelyard.models import forest
from modelyard.models.batches import Pieces
from modelyard.models.evaluation import ByPiece, outputs_of
from modelyard.models.fused import Fused, pretrained
from modelyard.models.packed import Packed, packed
from modelyard.models.workers import in_turn

MASK = "attention_mask"
OPSET = 17
"""The newest opset with GELU spelled out, which ONNX Runtime joins with the bias before it."""


def network_outputs(network: Any, pieces: Pieces) -> ByPiece:
    """A network's own outputs of each piece, in their order, as PyTorch computes them."""
    network.eval()
    return outputs_of(network, pieces, in_turn)


def export(
    network: Any, example: Mapping[str, NDArray[np.generic]], ragged: Collection[str], file: Path
) -> None:
    """Write a network as a graph from arrays, such as `example`, to `outputs`.

    Those are (P, C), or (P, T, C) of a network that answers for tokens. P is free in the graph,
    and so is T of what is as long as a piece (`ragged`). A network that is computed without
    padding takes what is ragged, but for masks, end to end (N,). The same weights give the same
    bytes.
    """
    network.eval()
    if isinstance(network, forest.Forest):
        forest.export(network, example, file)
        return
    for tower in pretrained(network):
        if hasattr(tower, "set_attn_implementation"):
            tower.set_attn_implementation("eager")
    made = network.with_towers(packed) if isinstance(network, Fused) else packed(network)
    given, axes = _given(example, ragged, _packed_in(made))
    wrapped = _Outputs(made, list(given)).eval()
    arrays = tuple(given.values())
    with torch.inference_mode(), _quiet():
        by_token = {1: "length"} if wrapped(*arrays).dim() == 3 else {}
        torch.onnx.export(
            wrapped,
            arrays,
            str(file),
            input_names=list(given),
            output_names=["outputs"],
            dynamic_axes={**axes, "outputs": {0: "pieces", **by_token}},
            opset_version=OPSET,
            dynamo=False,
        )


def _packed_in(network: Any) -> set[str]:
    """The prefixes of the arrays of towers that are computed without padding."""
    if isinstance(network, Fused):
        return {f"{name}." for name, own in network.towers.items() if isinstance(own, Packed)}
    return {""} if isinstance(network, Packed) else set()


def _given(
    example: Mapping[str, NDArray[np.generic]], ragged: Collection[str], flat_in: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """The arrays that a graph takes, and the names of their free axes."""
    given, axes = {}, {}
    for name, array in example.items():
        own = torch.from_numpy(np.asarray(array))
        prefix = name[: len(name) - len(name.rpartition(".")[2])]
        if name in ragged and prefix in flat_in and not name.endswith(MASK):
            mask = torch.from_numpy(np.asarray(example[prefix + MASK]))
            given[name], axes[name] = own[mask.bool()], {0: f"{prefix}tokens"}
        else:
            given[name], axes[name] = own, {0: "pieces"}
            if name in ragged:
                axes[name][1] = f"{prefix}length"
    return given, axes


class _Outputs(nn.Module):
    """A network that takes its arrays in order and gives nothing but its outputs (P, C)."""

    def __init__(self, network: Any, names: list[str]):
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *arrays: Tensor) -> Tensor:
        """The outputs (P, C)."""
        found = self.network(**dict(zip(self.names, arrays, strict=True)))
        outputs: Tensor = getattr(found, "logits", found)
        return outputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of each shape that it takes for a number; the graph is checked afterwards."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
