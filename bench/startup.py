"""How fast the command answers, and how large what serves is."""

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from bench.figures import ROOT, Figure, measures, of_runs

RUNS = 5
MEGA = 1_000_000


@measures("help")
def help_time() -> list[Figure]:
    """`modelyard --help`, the whole process."""
    command = [str(Path(sys.executable).with_name("modelyard")), "--help"]
    runs = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        runs.append(time.perf_counter() - start)
    return [of_runs("modelyard --help", runs[1:], 0.3, "<", "s", "whole process, after one")]


@measures("serving-size")
def serving_size() -> list[Figure]:
    """A new environment with what serves and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT)], check=True)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        size = sum(path.lstat().st_size for path in files if not path.is_symlink()) / MEGA
        torch = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    there = float(torch.returncode == 0)
    said = "all files of a new environment after `pip install modelyard`, pip itself included"
    return [
        Figure("serving environment", size, size, size, 450, "<", "MB", said),
        Figure("torch in it", there, there, there, 0, "<=", "", "import tried"),
    ]
