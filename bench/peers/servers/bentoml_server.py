"""BentoML with adaptive batching: RELEASE PORT.

`bentoml serve` imports this file once more and takes the service from it.
"""

import os
import sys
from pathlib import Path

import bentoml
from transformers import pipeline

RELEASE = "PEER_RELEASE"


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Texts:
    """The pipeline as a service."""

    def __init__(self) -> None:
        release = os.environ[RELEASE]
        self.classify = pipeline("text-classification", model=release, device="cpu")

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, texts: list[str]) -> list[dict]:
        """Label and score of each text."""
        return self.classify(texts, batch_size=len(texts), truncation=True)


if __name__ == "__main__":
    release, port = sys.argv[1:]
    here = Path(__file__)
    command = [
        str(Path(sys.executable).with_name("bentoml")), "serve", f"{here.stem}:Texts",
        "--working-dir", str(here.parent), "--host", "127.0.0.1", "--port", port,
    ]  # fmt: skip
    os.execve(command[0], command, {**os.environ, RELEASE: release, "BENTOML_DO_NOT_TRACK": "1"})
