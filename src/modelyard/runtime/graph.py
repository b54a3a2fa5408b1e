"""A graph in ONNX Runtime: arrays in, outputs out."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from modelyard.runtime.encoded import Arrays, Encoded, batches_by_length

BUDGET_TOKENS = 2048


class Graph:
    """An ONNX graph, loaded once and called by any thread."""

    def __init__(self, file: Path, threads: int | None = None):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            file, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.input_names = [each.name for each in self._session.get_inputs()]
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def run(self, arrays: Arrays) -> NDArray[np.float32]:
        """One batch: arrays (P, T) to outputs (P, C)."""
        wanted = {name: arrays[name] for name in self.input_names}
        outputs: NDArray[np.float32] = self._session.run(None, wanted)[0]
        return outputs

    def outputs(self, encoded: Encoded, budget_tokens: int = BUDGET_TOKENS) -> NDArray[np.float32]:
        """All pieces, batched by length with little padding: outputs (P, C) in their order."""
        outputs = np.empty((len(encoded.pieces), self.width), dtype=np.float32)
        for indices in batches_by_length(encoded.lengths, budget_tokens):
            outputs[indices] = self.run(encoded.collate(indices))
        return outputs
