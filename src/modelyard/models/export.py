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
from modelyard.models.first_token import read_first_token_only
from modelyard.models.fused import pretrained
from modelyard.models.workers import in_turn

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
    and so is T of what is as long as a piece (`ragged`). The same weights give the same bytes.
    The network itself is changed: afterwards its last layer may compute the first token only.
    """
    network.eval()
    if isinstance(network, forest.Forest):
        forest.export(network, example, file)
        return
    for tower in pretrained(network):
        if hasattr(tower, "set_attn_implementation"):
            tower.set_attn_implementation("eager")
        read_first_token_only(tower)
    axes = {name: {0: "pieces"} for name in example}
    for name in ragged:
        axes[name][1] = f"{name.rpartition('.')[0]}.tokens".lstrip(".")
    wrapped = _Outputs(network, list(example)).eval()
    arrays = tuple(torch.from_numpy(np.asarray(array)) for array in example.values())
    with torch.inference_mode(), _quiet():
        by_token = {1: "tokens"} if wrapped(*arrays).dim() == 3 else {}
        torch.onnx.export(
            wrapped,
            arrays,
            str(file),
            input_names=list(example),
            output_names=["outputs"],
            dynamic_axes={**axes, "outputs": {0: "pieces", **by_token}},
            opset_version=OPSET,
            dynamo=False,
        )


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
