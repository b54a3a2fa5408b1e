"""Who is measured: each one's server, request, reply, and the setting that serves it best."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import environments

SERVERS = Path(__file__).parent / "servers"
OURS = "modelyard"
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Server:
    """One that answers texts over HTTP."""

    name: str
    title: str
    path: str
    """The path to ask; {model} stands for the model's name."""
    body: Callable[[str], Any]
    label: Callable[[Any], str]
    setting: str

    def command(self, release: Path, port: int) -> list[str]:
        """What starts it."""
        if self.name == OURS:
            return [sys.executable, "-m", OURS, "serve", "--dev", str(release), "--port", str(port)]
        file = SERVERS / f"{self.name}_server.py"
        return [str(environments.python(self.name)), str(file), str(release), str(port)]


@dataclass(frozen=True)
class Engine:
    """One that answers texts in process."""

    name: str
    title: str
    environment: str | None
    """That of a peer, or None for this project's own."""
    setting: str

    def command(self, release: Path, texts: Path, seconds: float) -> list[str]:
        """What times it."""
        python = environments.python(self.environment) if self.environment else sys.executable
        file = SERVERS / f"{self.name}_engine.py"
        return [str(python), str(file), str(release), str(texts), str(seconds)]


SERVED = {
    each.name: each
    for each in (
        Server(
            OURS,
            "modelyard serve",
            "/v1/models/{model}/predict",
            lambda text: {"rows": [{"text": text}]},
            lambda reply: str(reply["predictions"][0]["label"]),
            "`modelyard serve --dev RELEASE`; the project has `compress.target = "
            '"int8-calibrated"`',
        ),
        Server(
            "fastapi",
            "pipeline behind FastAPI",
            "/predict",
            lambda text: {"text": text},
            lambda reply: str(reply["label"]),
            "transformers 5.23.0, torch 2.13.0; as transformers' page on web servers has it: one "
            "pipeline, a queue before it, up to 32 waiting texts as one batch, PyTorch in a thread "
            f"of its own with {CORES} threads; uvicorn with uvloop and httptools, one process, no "
            "access log",
        ),
        Server(
            "litserve",
            "LitServe 0.2.19",
            "/predict",
            lambda text: {"text": text},
            lambda reply: str(reply["label"]),
            "`max_batch_size=32`, `batch_timeout=0.01`, `workers_per_device=1`, "
            f"PyTorch with {CORES} threads, the pipeline given each batch whole",
        ),
        Server(
            "bentoml",
            "BentoML 1.4.39",
            "/predict",
            lambda text: {"texts": [text]},
            lambda reply: str(reply[0]["label"]),
            "`@bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10000)`, one worker, "
            f"PyTorch with {CORES} threads, no access log",
        ),
        Server(
            "mlflow",
            "MLflow 3.17.2",
            "/invocations",
            lambda text: {"inputs": [text]},
            lambda reply: str(reply["predictions"][0]["label"]),
            "a `PythonModel` that holds the pipeline, `mlflow models serve --env-manager local "
            f"--workers 1`, PyTorch with {CORES} threads; it has no batching",
        ),
    )
}
IN_PROCESS = {
    each.name: each
    for each in (
        Engine(
            OURS, "modelyard.load(release).predict(rows)", None, "int8, ranges from training rows"
        ),
        Engine("pipeline", "pipeline(batch_size=32)", environments.BASE, "fp32, torch's threads"),
        Engine(
            "setfit",
            "SetFit 1.2.0, ONNX",
            "setfit",
            "fp32, `export_onnx` (opset 14), a session of ONNX Runtime as it comes, batches of 32",
        ),
    )
}
PEERS = [name for name in (*SERVED, *IN_PROCESS) if name not in (OURS, "pipeline")]
