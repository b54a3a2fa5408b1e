"""A server that runs: started, asked until it answers, and ended with all it has started."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import environments
from bench.peers.catalogue import OURS, Server
from modelyard.service.load import Request

START_SECONDS = 300
STOP_SECONDS = 20
PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Running:
    """A server that has given its first answer."""

    server: Server
    url: str
    path: str
    first_answer_s: float
    """From its start to that answer."""
    process: int

    def label(self, text: str) -> str:
        """The label it gives a text."""
        return self.server.label(_asked(self.url + self.path, self.server.body(text)))

    def request(self, texts: list[str]) -> Request:
        """Requests for one text each, for the load generator."""
        bodies = [json.dumps(self.server.body(text)).encode() for text in texts]
        return Request.to(self.url, self.path, bodies)


@contextmanager
def running(server: Server, release: Path, model: str, text: str) -> Iterator[Running]:
    """Start a server on a free port of 127.0.0.1 and have it answer a text; stop it at the end."""
    port = _free_port()
    folder = environments.PLACE / server.name
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = None if server.name == OURS else environments.surroundings(server.name)
    path, url = server.path.format(model=model), f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            server.command(release, port),
            stdout=log, stderr=subprocess.STDOUT, env=surroundings, start_new_session=True,
        )  # fmt: skip
        try:
            _await_answer(process, url + path, server.body(text), Path(log.name))
            yield Running(server, url, path, time.perf_counter() - began, process.pid)
        finally:
            _stop(process)


def _await_answer(process: "subprocess.Popen[bytes]", url: str, body: Any, log: Path) -> None:
    ends = time.perf_counter() + START_SECONDS
    while process.poll() is None and time.perf_counter() < ends:
        try:
            _asked(url, body)
            return
        except OSError:  # no port yet, or a status that says to wait
            time.sleep(PAUSE_SECONDS)
    told = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise SystemExit(f"{url} gave no answer within {START_SECONDS} s:\n{told}")


def _asked(url: str, body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    question = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(question, timeout=START_SECONDS) as reply:
        return json.loads(reply.read())


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server and all processes it has started, which are of its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
