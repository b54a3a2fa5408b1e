"""Engines: what computes a graph, one batch in the thread that calls, many threads at a time.

ONNX Runtime is always there; OpenVINO is quicker on some processors, and used where it is installed
and a release was made with it.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.runtime.encoded import Arrays

Outputs = NDArray[np.float32]
"""Of a batch: (P, C), or (P, T, C) where a graph answers for tokens."""
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"


class Engine(Protocol):
    """A graph that is loaded."""

    ranks: Mapping[str, int]
    """How many dimensions each input has."""
    width: int
    """C."""

    def run(self, arrays: Arrays) -> Outputs:
        """A batch; any thread may do this."""


class OnnxRuntime:
    """A graph in ONNX Runtime, one operator after the other in the thread that calls."""

    def __init__(self, file: Path, threads: int):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # else a plan is kept for every shape ever seen
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            file, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.ranks: Mapping[str, int] = {
            each.name: len(each.shape) for each in self._session.get_inputs()
        }
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def run(self, arrays: Arrays) -> Outputs:
        """A batch."""
        outputs: Outputs = self._session.run(None, arrays)[0]
        return outputs


class OpenVino:
    """A graph in OpenVINO, with as many streams of one thread as there are threads that call."""

    def __init__(self, file: Path, threads: int):
        import openvino

        model = openvino.Core().read_model(file)
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",  # and not bf16, which says something else
        }
        self._model: Any = openvino.compile_model(model, "CPU", options)
        self._own = threading.local()
        self.ranks: Mapping[str, int] = {
            each.any_name: each.partial_shape.rank.get_length() for each in model.inputs
        }
        self.width = int(model.outputs[0].partial_shape[-1].get_length())

    def run(self, arrays: Arrays) -> Outputs:
        """A batch; each thread has a request of its own, which is no other's to use."""
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        told = self._own.request.infer(arrays, share_inputs=True)
        return np.array(next(iter(told.values())), dtype=np.float32)


ENGINES: dict[str, Callable[[Path, int], Engine]] = {ONNX_RUNTIME: OnnxRuntime, OPENVINO: OpenVino}
VARIABLE = "MODELYARD_ENGINES"
"""In the environment: the names of those that may be used, with commas; all where it is not set."""


def is_installed(name: str) -> bool:
    """Whether there is such an engine here, and it may be used.

    >>> is_installed("onnxruntime")
    True
    """
    allowed = os.environ.get(VARIABLE)
    if name != ONNX_RUNTIME and allowed is not None and name not in allowed.split(","):
        return False
    return importlib.util.find_spec(name) is not None
