"""A served release, for benchmarks that speak HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(release: Path) -> Iterator[str]:
    """The address of a server on 127.0.0.1, stopped at the end."""
    command = [sys.executable, "-m", "modelyard", "serve", str(release), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line.startswith("serving"):
            raise SystemExit("the server did not start")
        yield line.split()[1]
    finally:
        server.terminate()
        server.wait(timeout=30)
