"""The ceiling: what the machine's own int8 matrix product would let a network answer."""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TOKENS = 512
SECONDS = 0.5
OPERATIONS = 2
"""A product and a sum."""


def operations(release: Path, lengths: Sequence[int]) -> float:
    """The arithmetic of a BERT classifier's answers to texts of these lengths, in tokens.

    Only what an answer depends on counts: of the last layer, whose keys and values fold into the
    first token's query and output, that is no product over all tokens; padding never counts.
    """
    config = json.loads((release / "config.json").read_text(encoding="utf-8"))
    width, inner = config["hidden_size"], config["intermediate_size"]
    whole = config["num_hidden_layers"] - 1
    layer = 4 * width**2 + 2 * width * inner
    folded = 2 * config["num_attention_heads"] * width
    found = 0
    for length in lengths:
        attention = 2 * length * width
        found += length * (whole * (layer + attention) + folded) + layer
    return float(OPERATIONS * found)


def int8_operations_per_s(width: int = 384, inner: int = 1536) -> float:
    """The rate of int8 products, at the best of a layer's shapes, with every processor at work.

    Each processor multiplies 512 tokens by weights it keeps, as ONNX Runtime does it.
    """
    shapes = [(width, inner), (inner, width), (width, 3 * width)]
    return max(_rate(*shape) for shape in shapes)


def _rate(rows: int, columns: int) -> float:
    cores = len(os.sched_getaffinity(0))
    session = _product(rows, columns)
    tokens = np.random.default_rng(0).integers(0, 255, (TOKENS, rows)).astype(np.uint8)
    session.run(None, {"tokens": tokens})
    counts = [0] * cores
    until = time.perf_counter() + SECONDS

    def multiply(core: int) -> None:
        while time.perf_counter() < until:
            session.run(None, {"tokens": tokens})
            counts[core] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=multiply, args=(core,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return sum(counts) * OPERATIONS * TOKENS * rows * columns / seconds


def _product(rows: int, columns: int) -> ort.InferenceSession:
    """Tokens (512, rows) × weights (rows, columns), in one thread."""
    weights = np.random.default_rng(1).integers(-63, 64, (rows, columns)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["tokens", "weights", "middle"], ["sums"])],
        "product",
        [helper.make_tensor_value_info("tokens", TensorProto.UINT8, [TOKENS, rows])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [TOKENS, columns])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.asarray(np.uint8(128)), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
