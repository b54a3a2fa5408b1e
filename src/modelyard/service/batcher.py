"""The batcher: pieces of concurrent requests share batches through one graph.

Nothing waits for company: a piece that finds the graph idle runs at once, and what comes while
the graph is busy makes up the next batches. All state lives on the event loop; only the graph's
run leaves it, for one thread.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import ServiceBusy
from modelyard.runtime.encoded import (
    Encoded,
    PieceOutputs,
    each_of,
    of_pieces,
    one_after_the_other,
)
from modelyard.runtime.graph import BUDGET_TOKENS, Graph
from modelyard.service.metrics import Metrics

Outputs = NDArray[np.float32]
MOST_PIECES = 256
SLACK_TOKENS = 16
"""Pieces this much shorter than the longest, or a quarter shorter, may share its batch."""


@dataclass(eq=False)
class Job:
    """One request's pieces, and the outputs of each that come in batch by batch."""

    encoded: Encoded
    outputs: list[Outputs]
    done: asyncio.Future[PieceOutputs]
    waiting: int
    unfinished: int
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Piece:
    """One piece that waits; of equal length the older one goes first."""

    job: Job
    index: int
    length: int
    number: int

    @property
    def order(self) -> tuple[int, int]:
        """Where it stands among those that wait: the longest and oldest last."""
        return (self.length, -self.number)


class Batcher:
    """Runs encoded rows through a graph, many requests at a time."""

    def __init__(self, graph: Graph, metrics: Metrics, most_waiting_tokens: int):
        self._graph = graph
        self._metrics = metrics
        self._most_waiting_tokens = most_waiting_tokens
        self._jobs: deque[Job] = deque()
        self._pieces: list[Piece] = []
        self._waiting_tokens = 0
        self._number = 0
        self._tokens_per_s = 10_000.0
        self._pump: asyncio.Task[None] | None = None
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="graph")

    async def outputs(self, encoded: Encoded) -> PieceOutputs:
        """Outputs of pieces, in their order; raises ServiceBusy.

        Cancelling it takes the pieces that still wait out of the queue.
        """
        job = self._join(encoded)
        try:
            return await job.done
        finally:
            self._leave(job)

    def wait_s(self) -> int:
        """About how long what waits now will take, in whole seconds from 1 to 60."""
        return min(60, max(1, round(self._waiting_tokens / self._tokens_per_s)))

    def close(self) -> None:
        """Let go of the thread."""
        self._engine.shutdown()

    def _join(self, encoded: Encoded) -> Job:
        tokens = int(encoded.lengths.sum())
        if self._pieces and self._waiting_tokens + tokens > self._most_waiting_tokens:
            raise ServiceBusy(
                f"The service has {self._waiting_tokens:,} tokens of other requests waiting, and "
                f"takes {self._most_waiting_tokens:,}; send the request again a little later."
            )
        count = len(encoded.lengths)
        done = asyncio.get_running_loop().create_future()
        none = np.empty(0, np.float32)
        job = Job(encoded, [none] * count, done, waiting=count, unfinished=count)
        for index, length in enumerate(encoded.lengths.tolist()):
            self._number += 1
            piece = Piece(job, index, length, self._number)
            insort(self._pieces, piece, key=lambda piece: piece.order)
        self._jobs.append(job)
        self._count_waiting(tokens)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run_all())
        return job

    def _leave(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            gone = sum(piece.length for piece in self._pieces if piece.job is job)
            self._pieces = [piece for piece in self._pieces if piece.job is not job]
            self._count_waiting(-gone)

    def _count_waiting(self, tokens: int) -> None:
        self._waiting_tokens += tokens
        self._metrics.waiting(len(self._jobs), len(self._pieces), self._waiting_tokens)

    async def _run_all(self) -> None:
        while self._jobs:
            batch = self._next_batch()
            if not await self._ran(batch):  # one request's rows may have broken it: each alone
                for job in {piece.job: None for piece in batch}:
                    await self._ran([piece for piece in batch if piece.job is job], alone=True)

    def _next_batch(self) -> list[Piece]:
        """A batch with the longest piece of the request whose turn it is."""
        self._jobs.rotate(-1)
        longest = max(piece.length for piece in self._pieces if piece.job is self._jobs[-1])
        start, end = shared(self._pieces, longest)
        batch = self._pieces[start:end]
        del self._pieces[start:end]
        for piece in batch:
            self._start(piece.job)
        self._count_waiting(-sum(piece.length for piece in batch))
        return batch

    def _start(self, job: Job) -> None:
        if job.waiting == len(job.outputs):
            self._metrics.queue_wait.observe(time.monotonic() - job.since)
        job.waiting -= 1
        if not job.waiting:
            self._jobs.remove(job)

    async def _ran(self, batch: list[Piece], alone: bool = False) -> bool:
        """Run a batch and hand out its outputs; an error goes to a request that was alone."""
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._engine, _run, self._graph, batch)
        await asyncio.wait({run})
        rate = sum(piece.length for piece in batch) / max(1e-6, time.monotonic() - start)
        self._tokens_per_s += 0.1 * (rate - self._tokens_per_s)
        error = run.exception()
        job = batch[0].job
        if error is None:
            self._metrics.batch_ran([piece.length for piece in batch])
            _hand_out(batch, run.result(), self._graph.width)
        elif alone and not job.done.done():
            job.done.set_exception(error)
        return error is None


def shared(pieces: list[Piece], length: int) -> tuple[int, int]:
    """The span of pieces, sorted by length, that share a batch with the oldest of this length."""
    own = bisect_right(pieces, length, key=_length) - 1
    end = bisect_right(pieces, length, lo=own, key=lambda piece: _nearest(piece.length))
    most = min(MOST_PIECES, max(1, BUDGET_TOKENS // pieces[end - 1].length))
    end = min(end, own + most)
    start = bisect_left(pieces, _nearest(pieces[end - 1].length), hi=own, key=_length)
    return max(start, end - most), end


def _length(piece: Piece) -> int:
    return piece.length


def _nearest(length: int) -> int:
    """The shortest length that may share a batch with this one, which is the longest of it."""
    return length - max(SLACK_TOKENS, length // 4)


def _run(graph: Graph, batch: list[Piece]) -> list[Outputs]:
    """The outputs of each piece, in the order of the batch."""
    by_job: dict[Job, list[int]] = {}
    for place, piece in enumerate(batch):
        by_job.setdefault(piece.job, []).append(place)
    parts = [
        job.encoded.take(np.array([batch[place].index for place in places]))
        for job, places in by_job.items()
    ]
    found = each_of(graph.run(one_after_the_other(parts)))
    order = [place for places in by_job.values() for place in places]
    return [own for _, own in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _hand_out(batch: list[Piece], outputs: list[Outputs], width: int) -> None:
    for piece, output in zip(batch, outputs, strict=True):
        job = piece.job
        job.outputs[piece.index] = output
        job.unfinished -= 1
        if not job.unfinished and not job.done.done():
            job.done.set_result(of_pieces(job.outputs, width))
