"""A tiny release behind the service: in a thread of the tests, or as a process of its own.

    python tests/service_host.py FOLDER [--labels N] [--delay-ms N]

prints its URL, and serves until it is told to stop.
"""

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn
from starlette.types import ASGIApp
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modelyard import inputs, targets
from modelyard.core.artefacts import ColumnState, ModelSpec
from modelyard.core.project import Serve
from modelyard.doors import RESOLVED, release_info
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.index import Index
from modelyard.runtime.runtime import Runtime
from modelyard.service.app import create_app
from modelyard.service.metering import Meter
from modelyard.service.release_info import ReleaseInfo
from modelyard.service.server import PLAINLY, Listening, configuration, serve

TEXT = "a b c good bad fine dull warm cold film plot the of and is was not very 好 坏"
WORDS = TEXT.split()
COLUMN = "text"
SEAL = """
import sys
from pathlib import Path
from modelyard.runtime import seal
seal.sign(Path(sys.argv[1]))
"""
EXAMPLES = {
    "text": (
        {COLUMN: "the film was good and the plot is fine"},
        {COLUMN: "dull and cold"},
    ),
    "image": ({"photo": inputs.find("image").example()},),
}


def write_release(folder: Path, labels: int = 2, version: str = "3") -> Path:
    """A release's folder, as far as the runtime reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_graph(len(WORDS) + 4, labels))
    _tokenizer().save(str(folder / "tokenizer.json"))
    names = ["bad", "good"] if labels == 2 else [f"label {i:02d}" for i in range(labels)]
    spec = ModelSpec(
        name="tiny",
        version=version,
        inputs=[
            ColumnState(
                column=COLUMN,
                kind="text",
                state={"window_tokens": 32, "windows": 2, "pad_id": 0},
            )
        ],
        target=ColumnState(column="label", kind="class", state={"labels": names}),
        graph="model.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "report.html").write_text("<!doctype html><title>Report</title><p>An audit.")
    return folder


def write_image_release(folder: Path) -> Path:
    """A release that tells dark images from bright ones, as far as the runtime reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_brightness())
    state = {"size": 16, "fit": "pad", "augment": "none"}
    spec = ModelSpec(
        name="tiny",
        version="3",
        inputs=[ColumnState(column="photo", kind="image", state=state)],
        target=ColumnState(column="label", kind="class", state={"labels": ["bright", "dark"]}),
        graph="model.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "report.html").write_text("<!doctype html><title>Report</title><p>An audit.")
    return folder


def write_tagger(folder: Path) -> Path:
    """A release that marks words of praise and blame in a text, as far as the runtime reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_tags())
    _tokenizer().save(str(folder / "tokenizer.json"))
    state = {"window_tokens": 8, "windows": 1000, "pad_id": 0, "reads": "tokens", "shapes": False}
    labels = {"labels": ["bad", "good"], "words": "spaced"}
    spec = ModelSpec(
        name="tiny",
        version="3",
        inputs=[ColumnState(column=COLUMN, kind="text", state=state)],
        target=ColumnState(column="tone", kind="spans", state=labels),
        graph="model.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "report.html").write_text("<!doctype html><title>Report</title><p>An audit.")
    return folder


def write_matcher(folder: Path) -> Path:
    """A release that answers with texts of the same words, as far as the runtime reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_graph(len(WORDS) + 4, 8))
    _tokenizer().save(str(folder / "tokenizer.json"))
    state = {"window_tokens": 32, "windows": 2, "pad_id": 0, "reads": "vectors", "width": 8}
    spec = ModelSpec(
        name="tiny",
        version="3",
        inputs=[ColumnState(column=COLUMN, kind="text", state=state)],
        target=ColumnState(column="answer", kind="match", state={"width": 8, "seen": "had"}),
        graph="model.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "report.html").write_text("<!doctype html><title>Report</title><p>An audit.")
    texts = [f"the {word} film and not the plot of it " * 12 for word in WORDS[3:15]]
    vectors = open_runtime(folder).vectors(texts)
    Index([f"a{n}" for n in range(len(texts))], texts, vectors).save(folder)
    return folder


def _tags() -> bytes:
    """A row of a table for each token: logits (P, T, 5) of O and the first and further words."""
    from onnx import TensorProto, helper, numpy_helper

    tag_of = {"dull": 1, "bad": 1, "cold": 2, "fine": 3, "good": 3, "warm": 4, "坏": 1, "好": 3}
    table = np.full((len(WORDS) + 4, 5), -3, dtype=np.float32)
    for number, word in enumerate(["", "", "", "", *WORDS]):
        table[number, tag_of.get(word, 0)] = 3
    node = helper.make_node("Gather", ["table", "input_ids"], ["logits"])
    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["P", "T"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["P", "T", 5])
    initial = [numpy_helper.from_array(table, "table")]
    graph = helper.make_graph([node], "tags", [tokens], [logits], initial)
    opset = helper.make_opsetid("", 17)
    made: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return made


def _brightness() -> bytes:
    """The mean of the pixels, from -2 to 2, and its negative: logits (P, 2)."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "middle": np.array(127.5, dtype=np.float32),
        "rate": np.array(1 / 64, dtype=np.float32),
        "signs": np.array([[1.0, -1.0]], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "rate"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "signs"], ["logits"]),
    ]
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    initial.append(numpy_helper.from_array(np.array([1]), "last"))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["P", 3, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["P", 2])
    graph = helper.make_graph(nodes, "brightness", [pixels], [logits], initial)
    opset = helper.make_opsetid("", 17)
    made: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return made


def _graph(words: int, labels: int) -> bytes:
    """Mean of the embeddings of the unmasked tokens, times a matrix: logits (P, C)."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    constants = {
        "table": random.normal(size=(words, 8)).astype(np.float32),
        "matrix": random.normal(size=(8, labels)).astype(np.float32),
        "last": np.array([-1]),
        "middle": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["summed", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
    ]
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["P", "T"])
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["P", labels])
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", tokens, [logits], initial)
    opset = helper.make_opsetid("", 17)
    made: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return made


def _tokenizer() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def open_runtime(folder: Path) -> Runtime:
    return Runtime.open(folder, inputs.find, targets.find, threads=1)


def info_of(runtime: Runtime, folder: Path) -> ReleaseInfo:
    return replace(
        release_info(folder, runtime),
        description="Says whether a film is good.",
        examples=EXAMPLES[runtime.spec.inputs[0].kind],
        report=folder / "report.html",
    )


class SlowGraph:
    """A graph that calls something before each run."""

    def __init__(self, graph: object, before: Callable[[Encoded], None]):
        self._graph = graph
        self._before = before

    def __getattr__(self, name: str) -> object:
        return getattr(self._graph, name)

    def run(self, encoded: Encoded) -> np.ndarray:
        self._before(encoded)
        return self._graph.run(encoded)


def slowed(runtime: Runtime, before: Callable[[Encoded], None]) -> Runtime:
    object.__setattr__(runtime, "graph", SlowGraph(runtime.graph, before))
    return runtime


@contextmanager
def served(
    runtime: Runtime, info: ReleaseInfo, limits: Serve, meter: Meter | None = None
) -> Iterator[str]:
    """The app in a thread of this process; gives its URL."""
    with serving_app(create_app(runtime, info, limits, meter)) as url:
        yield url


@contextmanager
def serving_app(app: ASGIApp, listening: Listening = PLAINLY) -> Iterator[str]:
    """Any app, served as a release is, in a thread of this process; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configuration(app, replace(listening, grace_seconds=20)))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def process(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app as a process of its own; gives the process and its URL."""
    command = [sys.executable, __file__, str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def signed(folder: Path) -> Path:
    """The release, signed as `serve` takes it."""
    (folder / RESOLVED).write_text(
        'name = "tiny"\n[data]\nrows = "rows.csv"\n[inputs]\ntext = "text"\n'
        '[target]\ncolumn = "label"\n'
    )
    subprocess.run([sys.executable, "-c", SEAL, str(folder)], check=True)
    return folder


@contextmanager
def serving(release: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`modelyard serve` on a signed release; gives the process and its URL."""
    with commanded("--dev", str(release), *options) as (parent, url):
        yield parent, url


@contextmanager
def commanded(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`modelyard serve` on a free port; gives the process and its URL."""
    command = [sys.executable, "-m", "modelyard", "serve", "--port", "0", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as parent:
        try:
            assert parent.stdout is not None
            yield parent, parent.stdout.readline().split()[1]
        finally:
            parent.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if not (options.folder / "model.json").is_file():
        write_release(options.folder, options.labels)
    runtime = open_runtime(options.folder)
    if options.delay_ms:
        runtime = slowed(runtime, lambda arrays: time.sleep(options.delay_ms / 1000))
    app = create_app(runtime, info_of(runtime, options.folder), Serve.model_validate({}))
    serve(app, "127.0.0.1", options.port, lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
