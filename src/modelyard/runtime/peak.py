"""Peak: the memory that a graph takes, measured in a process that runs nothing else.

python -m modelyard.runtime.peak GRAPH PIECES.npz
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.runtime.encoded import Deferred, Encoded, Kept, Ragged

LONGEST_S = 300
FACTS, LENGTHS, ENDS = "facts", "lengths", ".ends"


def memory_of(process: int | str) -> int | None:
    """The most memory that a process had at once, where the system tells it (Linux)."""
    try:
        told = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", told)
    return int(found.group(1)) * 1024 if found else None


def peak_memory_bytes(graph: Path, pieces: Encoded) -> int | None:
    """What a process needs at most that opens a graph and runs it on pieces; None where untold."""
    if memory_of("self") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pieces.npz"
        _save(pieces, file)
        program = [sys.executable, "-m", "modelyard.runtime.peak", str(graph), str(file)]
        try:
            done = subprocess.run(program, capture_output=True, timeout=LONGEST_S, check=False)
        except subprocess.TimeoutExpired:
            return None
    return int(done.stdout) if done.returncode == 0 else None


def _save(pieces: Encoded, file: Path) -> None:
    arrays: dict[str, Any] = {LENGTHS: pieces.lengths}
    facts: dict[str, Any] = {}
    for name, kept in pieces.arrays.items():
        if isinstance(kept, Ragged):
            facts[name] = [kept.fill, kept.mask]
            arrays |= {name: kept.values, name + ENDS: kept.ends}
        else:
            arrays[name] = kept.whole() if isinstance(kept, Deferred) else kept
    np.savez(file, allow_pickle=False, **arrays, **{FACTS: np.array(json.dumps(facts))})


def _load(file: Path) -> Encoded:
    with np.load(file, allow_pickle=False) as found:
        facts = json.loads(str(found[FACTS]))
        arrays: dict[str, Kept] = {
            name: Ragged(found[name], found[name + ENDS], *facts[name])
            if name in facts
            else found[name]
            for name in found.files
            if name not in (FACTS, LENGTHS) and not name.endswith(ENDS)
        }
        return Encoded(arrays, np.arange(len(found[LENGTHS])), found[LENGTHS])


def main(graph: str, pieces: str) -> None:
    """Run a graph on saved pieces and tell the bytes to who asked."""
    from modelyard.runtime.graph import Graph

    encoded = _load(Path(pieces))
    Graph(Path(graph)).outputs(replace(encoded, places=None))
    sys.stdout.write(str(memory_of("self")))


if __name__ == "__main__":
    main(*sys.argv[1:])
