"""MLflow's serving of a pyfunc model: RELEASE PORT.

The model is saved beside the peer's environment, then `mlflow models serve` serves it.
"""

import os
import shutil
import sys
from pathlib import Path

import mlflow
from transformers import pipeline


class Texts(mlflow.pyfunc.PythonModel):
    """The pipeline as a pyfunc model."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Open the model, once in each worker."""
        release = context.artifacts["release"]
        self.classify = pipeline("text-classification", model=release, device="cpu")

    def predict(self, context: object, model_input: list[str]) -> list[dict]:
        """Label and score of each text."""
        return self.classify(list(model_input), batch_size=32, truncation=True)


if __name__ == "__main__":
    release, port = sys.argv[1:]
    saved = Path(sys.executable).parents[2] / "model"
    shutil.rmtree(saved, ignore_errors=True)
    mlflow.pyfunc.save_model(
        str(saved), python_model=Texts(), artifacts={"release": release}, pip_requirements=[]
    )
    command = [
        str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(saved),
        "--env-manager", "local", "--host", "127.0.0.1", "--port", port, "--workers", "1",
    ]  # fmt: skip
    os.execv(command[0], command)
