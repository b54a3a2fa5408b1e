"""MLflow's serving of a pyfunc model: RELEASE PORT.

The model is saved beside the peer's environment, once for a release, and `mlflow models serve`
serves it.
"""

import os
import sys
from pathlib import Path


def saved(release: Path) -> Path:
    """The folder of the MLflow model of a release."""
    folder = Path(sys.executable).parents[2] / "models" / release.name
    if not (folder / "MLmodel").exists():
        import mlflow

        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={"release": str(release)},
            pip_requirements=[],
        )
    return folder


if __name__ == "__main__":
    release, port = sys.argv[1:]
    command = [
        str(Path(sys.executable).with_name("mlflow")), "models", "serve",
        "-m", str(saved(Path(release))), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", port, "--workers", "1",
    ]  # fmt: skip
    os.execv(command[0], command)
