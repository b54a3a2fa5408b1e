"""Environments of the peers: each its own, with pinned versions, over one that holds PyTorch.

PyTorch and transformers take 1 GB and are the same for all, so they are installed once, and a
path file lets each peer's environment find them. What a peer pins itself comes before them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.figures import WORK

BASE = "base"
PLACE = WORK / "peers"
PINS = Path(__file__).parent / "requirements"
NOT_PASSED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")


def python(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return PLACE / name / ".venv" / "bin" / "python"


def surroundings(name: str) -> dict[str, str]:
    """The variables a peer's process gets: its own commands first, nothing from the network."""
    kept = {key: value for key, value in os.environ.items() if key not in NOT_PASSED}
    path = os.pathsep.join([str(python(name).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "HF_HUB_OFFLINE": "1"}


def build(name: str) -> None:
    """Make the environment of a peer where it does not stand with these pins."""
    if name != BASE:
        build(BASE)
    wanted = "".join(_pins(each) for each in dict.fromkeys((BASE, name)))
    stands = PLACE / name / "pins.txt"
    if stands.exists() and stands.read_text(encoding="utf-8") == wanted:
        return
    print(f"  environment of {name}", flush=True)
    shutil.rmtree(PLACE / name, ignore_errors=True)
    _make(name)
    stands.write_text(wanted, encoding="utf-8")  # last, so that half an environment never stands


def _make(name: str) -> None:
    environment = PLACE / name / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    if name != BASE:
        [own] = environment.glob("lib/python3*/site-packages")
        [base] = (PLACE / BASE / ".venv").glob("lib/python3*/site-packages")
        (own / "base.pth").write_text(f"{base}\n", encoding="utf-8")
    install = ["-m", "pip", "install", "--quiet", "-r", str(PINS / f"{name}.txt")]
    subprocess.run([str(python(name)), *install], check=True, env=surroundings(name))


def _pins(name: str) -> str:
    return (PINS / f"{name}.txt").read_text(encoding="utf-8")
