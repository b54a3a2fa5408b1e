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

from modelyard.models.batches import Pieces, groups_by_length
from modelyard.models.evaluation import piece_outputs
from modelyard.models.first_token import read_first_token_only
from modelyard.models.fused import pretrained

OPSET = 17
"""The newest opset with GELU spelled out, which ONNX Runtime joins with the bias before it."""


def network_outputs(network: Any, pieces: Pieces, width: int) -> NDArray[np.float32]:
    """A network's own outputs of pieces (P, C), in their order, as PyTorch computes them."""
    network.eval()
    outputs = np.empty((len(pieces.lengths), width), dtype=np.float32)
    with torch.inference_mode():
        for group in groups_by_length(np.arange(len(outputs)), pieces.lengths):
            outputs[group] = piece_outputs(network, pieces, group).numpy()
    return outputs


def export(
    network: Any, example: Mapping[str, NDArray[np.generic]], ragged: Collection[str], file: Path
) -> None:
    """Write a network as a graph from arrays, such as `example`, to `outputs` (P, C).

    P is free in the graph, and so is T of what is as long as a piece (`ragged`). The same weights
    give the same bytes. The network itself is changed: afterwards its last layer may compute the
    first token only.
    """
    network.eval()
    for tower in pretrained(network):
        if hasattr(tower, "set_attn_implementation"):
            tower.set_attn_implementation("eager")
        read_first_token_only(tower)
    axes = {name: {0: "pieces"} for name in example}
    for name in ragged:
        axes[name][1] = f"{name.rpartition('.')[0]}.tokens".lstrip(".")
    with torch.inference_mode(), _quiet():
        torch.onnx.export(
            _Outputs(network, list(example)).eval(),
            tuple(torch.from_numpy(np.asarray(array)) for array in example.values()),
            str(file),
            input_names=list(example),
            output_names=["outputs"],
            dynamic_axes={**axes, "outputs": {0: "pieces"}},
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
