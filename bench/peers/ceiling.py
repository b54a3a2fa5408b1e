"""The ceiling: texts a second if nothing but the model's own products took time, in integers.

The arithmetic is that of a BERT's layers for a text of so many tokens, without padding. The rate is
what ONNX Runtime's int8 product reaches on this machine with the model's own shapes and all
threads, in whichever of two ways is faster: each thread a product of its own, or all one together.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TOKENS = 512
"""Rows of each product, as many as the engine gives a thread at once."""
REPEATS = 5
IR_VERSION = 10
Run = Callable[[], Any]


@dataclass(frozen=True)
class Arithmetic:
    """What a network computes: its layers' products of weights, and its attention."""

    layers: int
    width: int
    inner: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Arithmetic":
        """That of a BERT's config.json."""
        names = ("num_hidden_layers", "hidden_size", "intermediate_size")
        return cls(*(int(config[name]) for name in names))

    @property
    def shapes(self) -> dict[tuple[int, int], int]:
        """Weights (K, N) that each token is multiplied with in a layer, and how often."""
        width, inner = self.width, self.inner
        return {(width, width): 4, (width, inner): 1, (inner, width): 1}

    def of_token(self) -> int:
        """Multiplications of a token with weights, in all layers.

        >>> Arithmetic(layers=6, width=384, inner=1536).of_token()
        10616832
        """
        return self.layers * sum(k * n * times for (k, n), times in self.shapes.items())

    def of_text(self, tokens: float) -> float:
        """Multiplications of a text: each token with weights, and with all tokens, twice."""
        return tokens * (self.of_token() + 2 * self.layers * tokens * self.width)


def products_per_s(arithmetic: Arithmetic, seconds: float) -> float:
    """Multiplications a second of int8 products of the model's shapes, on all processors."""
    threads = len(os.sched_getaffinity(0))
    share_s = seconds / len(arithmetic.shapes) / 2
    of_token_s = sum(
        times * min(_apart(shape, threads, share_s), _together(shape, threads, share_s))
        for shape, times in arithmetic.shapes.items()
    )
    return arithmetic.of_token() / arithmetic.layers / of_token_s


def _apart(shape: tuple[int, int], threads: int, seconds: float) -> float:
    """Seconds of a token where each thread multiplies tokens of its own."""
    with ThreadPoolExecutor(threads) as pool:
        runs = [_product(shape, TOKENS, 1) for _ in range(threads)]
        return _each_s(lambda: list(pool.map(lambda run: run(), runs)), seconds) / threads / TOKENS


def _together(shape: tuple[int, int], threads: int, seconds: float) -> float:
    """Seconds of a token where all threads multiply the same tokens."""
    return _each_s(_product(shape, TOKENS * threads, threads), seconds) / threads / TOKENS


def _each_s(run: Run, seconds: float) -> float:
    """Seconds of a run: the least of the medians of several stretches, for it is a ceiling."""
    run()
    return min(statistics.median(_stretch(run, seconds / REPEATS)) for _ in range(REPEATS))


def _stretch(run: Run, seconds: float) -> Sequence[float]:
    taken: list[float] = []
    began = time.perf_counter()
    while not taken or time.perf_counter() - began < seconds:
        before = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before)
    return taken


def _product(shape: tuple[int, int], tokens: int, threads: int) -> Run:
    """Tokens (T, K) in 8 bits times weights (K, N) in 8 bits, as fp32 (T, N)."""
    rng = np.random.default_rng(0)
    known = {
        "weights": rng.integers(-63, 64, shape).astype(np.int8),
        "step": np.float32(0.01),
        "scales": np.full(shape[1], 0.01, np.float32),
        "middle": np.uint8(128),
    }
    node = helper.make_node(
        "MatMulIntegerToFloat",
        ["tokens", "weights", "step", "scales", "middle"],
        ["found"],
        domain="com.microsoft",
    )
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "product",
        [make("tokens", TensorProto.UINT8, ["T", shape[0]])],
        [make("found", TensorProto.FLOAT, ["T", shape[1]])],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in known.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    given = {"tokens": rng.integers(0, 256, (tokens, shape[0])).astype(np.uint8)}
    return lambda: session.run(None, given)
