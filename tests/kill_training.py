"""Train on the tiny backbone, killed again and again with SIGKILL; prints what came of it.

It forks itself once everything is imported, so that each attempt starts at once.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tests.tiny import project_on

from modelyard import inputs
from modelyard.core import digest
from modelyard.core.artefacts import Dataset
from modelyard.core.events import Event
from modelyard.core.store import Draft
from modelyard.models import loop, training  # noqa: F401 (imported before the forks)
from modelyard.stages.train import train

STEPS = (2, 9)  # done before a kill, drawn between
DELAY_MS = 20  # and as much later, at most

root, backbone = Path(sys.argv[1]), Path(sys.argv[2])
loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_SHARE = 0.0, 1e9


def attempt(folder: Path, steps: int = 0, delay_ms: float = 0) -> int:
    """Start a training in a process of its own, killed a moment after some steps."""
    for name in ("out", "kept"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if child := os.fork():
        return child
    torch.set_num_threads(2)
    if steps:
        kill_after(steps, delay_ms)

    def note(event: Event) -> None:
        if "goes on" in getattr(event, "text", ""):
            (folder / f"resumed-{os.getpid()}").touch()

    draft = Draft(folder / "out", folder / "kept", {})
    wanted = project_on(backbone, epochs=5)
    train.run(project=wanted, dataset=Dataset(root / "dataset"), draft=draft, events=note)
    os._exit(0)


def kill_after(steps: int, delay_ms: float) -> None:
    """Kill this process with SIGKILL at a moment after so many steps, wherever it is then."""
    plain, left = loop._step, [steps]

    def step(*arguments: Any) -> None:
        plain(*arguments)
        left[0] -= 1
        if left[0] == 0:
            end = threading.Timer(delay_ms / 1000, os.kill, (os.getpid(), signal.SIGKILL))
            end.daemon = True
            end.start()

    loop._step = step


torch.set_num_threads(1)  # threads would not live on in a fork
inputs.find("text").network([], backbone, 2, 0.0)
os.waitpid(attempt(root / "unbroken"), 0)
rng, kills, status = random.Random(0), 0, 1
while status:
    shutil.rmtree(root / "killed" / "out", ignore_errors=True)
    child = attempt(root / "killed", rng.randint(*STEPS), rng.uniform(0, DELAY_MS))
    _, status = os.waitpid(child, 0)
    kills += status != 0
print(
    json.dumps(
        {
            "kills": kills,
            "resumed": len(list((root / "killed").glob("resumed-*"))),
            "files": digest.of_folder(root / "killed" / "out"),
            "unbroken": digest.of_folder(root / "unbroken" / "out"),
        }
    )
)
