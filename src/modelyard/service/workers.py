"""Workers: several processes that share one port, and the parent that keeps them running.

Each is a whole service of its own; the system hands connections out among them (SO_REUSEPORT). One
that dies is replaced, and all end with the parent, however that ends: each reads a pipe that only
the parent holds open. What they count is kept in files of one folder, so that any of them can tell
the counts of all.
"""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from modelyard.core.errors import SettingInvalid

COUNTS = "PROMETHEUS_MULTIPROC_DIR"
LEASH = "MODELYARD_WORKER"
"""Names the end of the parent's pipe in a worker's environment."""
MOST_WORKERS = 64
RETRY_SECONDS = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def is_worker() -> bool:
    """Whether this process is one of several that share a port."""
    return LEASH in os.environ


def check(workers: int) -> None:
    """Raise SettingInvalid for a number that cannot be, or a system without shared ports."""
    if not 1 <= workers <= MOST_WORKERS:
        raise SettingInvalid(f"--workers takes 1 to {MOST_WORKERS}; got {workers}.")
    if workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
        raise SettingInvalid(
            f"--workers is {workers}, and this system lets no two processes share a port; leave it "
            "out, and start several services on ports of their own."
        )


def end_with_parent() -> None:
    """Have this worker stop when its parent is gone."""
    leash = int(os.environ[LEASH])

    def watch() -> None:
        with suppress(OSError):
            os.read(leash, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def serve_together(
    words: Sequence[str],
    workers: int,
    host: str,
    port: int,
    ready: Callable[[str], None],
    tell: Callable[[str], None],
) -> int:
    """Run so many workers of the command `words` until told to stop; the exit status.

    `ready` gets the address once all take requests, `tell` what becomes of workers. Raises
    SettingInvalid where the address cannot be used.
    """
    with _reserved(host, port) as taken, tempfile.TemporaryDirectory() as counts:
        crew = Crew([*words, "--port", str(taken)], workers, counts, tell)
        with _heard(crew.stop):
            return crew.run(ready)


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """A port that workers may listen on, kept from others meanwhile."""
    from modelyard.service.server import bound

    if port:
        bound(host, port).close()  # refused where others listen, workers of another parent too
    with bound(host, port, is_shared=True) as kept:
        yield int(kept.getsockname()[1])


@contextmanager
def _heard(stop: Callable[[], None]) -> Iterator[None]:
    """Have the signals that end a service call `stop`."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {each: signal.signal(each, handle) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Crew:
    """Workers, started one after the other and replaced when they die."""

    def __init__(
        self, words: Sequence[str], workers: int, counts: str, tell: Callable[[str], None]
    ):
        self._tell = tell
        self._words = list(words)
        self._workers = workers
        self._counts = counts
        self._running: list[subprocess.Popen[str]] = []
        self._is_stopping = False
        self._leash, self._held = os.pipe()

    def run(self, ready: Callable[[str], None]) -> int:
        """Until `stop` is called or no worker is left; 0, or the status of one that failed."""
        try:
            return self._run(ready)
        finally:
            self.stop()
            for worker in self._running:
                worker.wait()
            os.close(self._held)
            os.close(self._leash)

    def stop(self) -> None:
        """Have all of them finish what is in flight and end."""
        self._is_stopping = True
        for worker in list(self._running):
            worker.terminate()

    def _run(self, ready: Callable[[str], None]) -> int:
        for _ in range(self._workers):  # the first says what is wrong for all
            address = self._started()
            if not address or self._is_stopping:
                return self._status()
        ready(address)
        while not self._is_stopping:
            died = next((each for each in self._running if each.poll() is not None), None)
            if died is None:
                time.sleep(0.1)
            elif not self._replaced(died):
                if not any(each.poll() is None for each in self._running):
                    return 1
                time.sleep(RETRY_SECONDS)  # the others go on, and it is tried again
        return 0

    def _started(self) -> str:
        """The address that a new worker takes requests at; "" where it does not."""
        worker = subprocess.Popen(
            self._words,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self._leash],
            env=os.environ | {LEASH: str(self._leash), COUNTS: self._counts},
        )
        self._running.append(worker)
        if self._is_stopping:  # told so while it was made
            worker.terminate()
        assert worker.stdout is not None
        told = worker.stdout.readline().split()
        return told[1] if len(told) > 1 else ""

    def _status(self) -> int:
        """What a worker that could not start ended with."""
        worker = self._running[-1]
        return 0 if self._is_stopping else (worker.wait() or 1)

    def _replaced(self, died: "subprocess.Popen[str]") -> bool:
        """Start another in place of one that took requests; whether that one takes them too."""
        self._running.remove(died)
        how = f"signal {-died.returncode}" if died.returncode < 0 else f"status {died.returncode}"
        self._tell(f"a worker ended with {how}; starting another")
        _forget(died.pid, self._counts)
        return bool(self._started()) or self._is_stopping


def _forget(process: int, counts: str) -> None:
    """Let what a dead worker held no longer count; what it has done still does."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process, counts)  # type: ignore[no-untyped-call]
