"""A metered service under clients, killed at random moments; what was answered against the books.

Each client names its request by an idempotency key and sends it again until it is answered, as a
client that wants one answer does. What must hold at the end: the requests answered are the
requests counted, each once.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from sqlalchemy import Engine, func, select

from modelyard.ledger import schema, usage
from modelyard.ledger.database import reading

CLIENTS = 32
PAUSE_SECONDS = 0.05
START_SECONDS = 60
ANSWER_SECONDS = 60


@dataclass
class Met:
    """What clients met: the id under which each of their requests was counted."""

    ids: list[str] = field(default_factory=list)
    replayed: int = 0
    broken: int = 0
    """Requests that had to be sent again."""


@dataclass
class Service:
    """`modelyard serve` with several workers, on a port of its own."""

    words: Sequence[str]
    port: int
    parent: "subprocess.Popen[str] | None" = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        command = [sys.executable, "-m", "modelyard", "serve", "--port", str(self.port)]
        self.parent = subprocess.Popen(
            [*command, *self.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.parent.stdout is not None
        if not self.parent.stdout.readline():
            raise RuntimeError("the service has not started")

    def kill_worker(self, rng: random.Random) -> None:
        """Kill -9 one of its workers."""
        assert self.parent is not None
        workers = psutil.Process(self.parent.pid).children()
        if workers:
            rng.choice(workers).kill()

    def kill(self) -> None:
        """Kill -9 all of it at once."""
        assert self.parent is not None
        os.killpg(self.parent.pid, signal.SIGKILL)
        self.parent.communicate()

    def stop(self) -> None:
        """End it as it is ended."""
        assert self.parent is not None
        self.parent.terminate()
        self.parent.communicate(timeout=30)


@dataclass(frozen=True)
class Verdict:
    """What was answered, what was counted, and where these differ."""

    kills: int
    answered: int
    replayed: int
    broken: int
    lost: int
    """Answered and not counted."""
    doubled: int
    """Counted more than once."""
    unanswered: int
    """Counted and not answered."""
    rows_differ: bool
    rollups_differ: int

    @property
    def failures(self) -> int:
        """How often the books are wrong."""
        return self.lost + self.doubled + self.unanswered + self.rows_differ + self.rollups_differ


def killed(
    release: Path, url: str, engine: Engine, key: str, kills: int, seed: int = 0, port: int = 0
) -> Verdict:
    """Kill a service so often while clients ask it, and compare."""
    words = ["--database", url, "--workers", "3", "--threads", "1", str(release)]
    service = Service(words, port or _free_port())
    service.start()
    try:
        met = asyncio.run(_under_clients(service, key, kills, random.Random(seed)))
    finally:
        service.stop()
    return _verdict(engine, met, kills)


async def _under_clients(service: Service, key: str, kills: int, rng: random.Random) -> Met:
    met, is_over = Met(), asyncio.Event()
    clients = [asyncio.create_task(_client(service, key, met, is_over)) for _ in range(CLIENTS)]
    for number in range(kills):
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        if number % 4 == 3:
            service.kill()
            await asyncio.to_thread(service.start)
        else:
            service.kill_worker(rng)
    is_over.set()
    await asyncio.gather(*clients)
    return met


async def _client(service: Service, key: str, met: Met, is_over: asyncio.Event) -> None:
    own = {"Authorization": f"Bearer {key}"}
    while not is_over.is_set():
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS) as client:
            headers = own | {"Idempotency-Key": str(uuid.uuid4())}
            await _asked_until_answered(client, service, headers, met)


async def _asked_until_answered(
    client: httpx.AsyncClient, service: Service, headers: dict[str, str], met: Met
) -> None:
    path = f"{service.url}/v1/models/tiny/predict"
    body = {"rows": [{"text": "a good film"}]}
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        try:
            reply = await client.post(path, json=body, headers=headers)
        except httpx.TransportError:
            reply = None
        if reply is not None and reply.status_code == 200:
            met.ids.append(reply.headers["x-request-id"])
            met.replayed += "idempotency-replayed" in reply.headers
            return
        if reply is not None and reply.status_code not in (409, 503):
            raise RuntimeError(f"{reply.status_code}: {reply.text}")
        met.broken += 1
        await asyncio.sleep(PAUSE_SECONDS)
    raise RuntimeError("a request was never answered")


def _verdict(engine: Engine, met: Met, kills: int) -> Verdict:
    records = schema.records.c
    with reading(engine) as connection:
        counted = list(connection.execute(select(records.id).where(records.requests > 0)).scalars())
        rows = connection.execute(select(func.sum(records.rows))).scalar() or 0
        rolled = connection.execute(select(func.sum(schema.rollups.c.rows))).scalar() or 0
    answered = set(met.ids)
    return Verdict(
        kills=kills,
        answered=len(met.ids),
        replayed=met.replayed,
        broken=met.broken,
        lost=len(answered - set(counted)),
        doubled=len(counted) - len(set(counted)) + len(met.ids) - len(answered),
        unanswered=len(set(counted) - answered),
        rows_differ=not rows == rolled == len(met.ids),
        rollups_differ=len(usage.differences(engine)),
    )


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
