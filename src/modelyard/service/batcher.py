"""The batcher: pieces of concurrent requests share batches through one graph.

Nothing waits for company: a piece that finds a processor idle runs at once, and what comes while
all are busy makes up the next batches, one for each processor. All state lives on the event loop;
only the graph's runs leave it, each for a thread.
"""

import asyncio
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

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
from modelyard.runtime.graph import SHARE_TOKENS, Graph
from modelyard.service.metrics import Metrics

Outputs = NDArray[np.float32]
MOST_PIECES = 256
SLACK_TOKENS = 16
"""Pieces this much shorter than the longest, or a quarter shorter, may share its batch."""
PACKED = 8
"""Where nothing is padded but attention, the longest may be so many times as long."""


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
        self._threads = graph.threads
        self._running = 0
        self._is_due = False
        metrics.watch(metrics.queue_requests, lambda: len(self._jobs))
        metrics.watch(metrics.queue_pieces, lambda: len(self._pieces))
        metrics.watch(metrics.queue_tokens, lambda: self._waiting_tokens)
        self._engine = ThreadPoolExecutor(self._threads, thread_name_prefix="graph")

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
        self._waiting_tokens += tokens
        if not self._is_due:  # after all that join in this turn of the loop
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._run_more)
        return job

    def _leave(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            gone = sum(piece.length for piece in self._pieces if piece.job is job)
            self._pieces = [piece for piece in self._pieces if piece.job is not job]
            self._waiting_tokens -= gone

    def _run_more(self) -> None:
        """Start a batch on each processor that is idle, as long as pieces wait."""
        self._is_due = False
        while self._pieces and self._running < self._threads:
            self._start_batch(self._next_batch())

    def _start_batch(self, batch: list[Piece], alone: bool = False) -> None:
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._engine, _run, self._graph, batch)
        self._running += 1
        run.add_done_callback(partial(self._ended, batch, start, alone))

    def _ended(
        self, batch: list[Piece], start: float, alone: bool, run: "asyncio.Future[list[Outputs]]"
    ) -> None:
        """Hand out a batch's outputs; of one that broke each request is run alone."""
        self._running -= 1
        error = run.exception()
        if error is not None and not alone:  # one request's rows may have broken it
            for job in {piece.job: None for piece in batch}:
                self._start_batch([piece for piece in batch if piece.job is job], alone=True)
            return
        self._run_more()
        if error is not None:
            if not batch[0].job.done.done():
                batch[0].job.done.set_exception(error)
            return
        lengths = [piece.length for piece in batch]
        rate = self._threads * sum(lengths) / max(1e-6, time.monotonic() - start)
        self._tokens_per_s += 0.1 * (rate - self._tokens_per_s)
        self._metrics.batch_ran(lengths, self._graph.pads)
        _hand_out(batch, run.result(), self._graph.width)

    def _next_batch(self) -> list[Piece]:
        """A batch with the longest piece of the request whose turn it is."""
        self._jobs.rotate(-1)
        longest = max(piece.length for piece in self._pieces if piece.job is self._jobs[-1])
        idle = self._threads - self._running
        budget = min(SHARE_TOKENS, self._waiting_tokens // idle) if idle > 1 else SHARE_TOKENS
        start, end = shared(self._pieces, longest, budget, self._graph.pads)
        batch = self._pieces[start:end]
        del self._pieces[start:end]
        for piece in batch:
            self._start(piece.job)
        self._waiting_tokens -= sum(piece.length for piece in batch)
        return batch

    def _start(self, job: Job) -> None:
        if job.waiting == len(job.outputs):
            self._metrics.queue_wait.observe(time.monotonic() - job.since)
        job.waiting -= 1
        if not job.waiting:
            self._jobs.remove(job)


def shared(pieces: Sequence[Piece], length: int, budget_tokens: int, pads: bool) -> tuple[int, int]:
    """The span of pieces, sorted by length, that share a batch with the oldest of this length.

    `budget_tokens` holds what is computed: with padding where the graph `pads`.
    """
    own = bisect_right(pieces, length, key=_length) - 1
    start, end, total = own, own + 1, length

    def takes(other: Piece, longest: int) -> bool:
        count = end - start + 1
        computed = count * longest if pads else total + other.length
        near = other.length >= _nearest(longest, pads) and length >= _nearest(longest, pads)
        return near and computed <= budget_tokens and count <= MOST_PIECES

    while end < len(pieces) and takes(pieces[end], pieces[end].length):
        total += pieces[end].length
        end += 1
    while start and takes(pieces[start - 1], pieces[end - 1].length):
        start -= 1
        total += pieces[start].length
    return start, end


def _length(piece: Piece) -> int:
    return piece.length


def _nearest(length: int, pads: bool) -> int:
    """The shortest length that may share a batch with this one, which is the longest of it."""
    return length - max(SLACK_TOKENS, length // 4) if pads else length // PACKED


def _run(graph: Graph, batch: list[Piece]) -> list[Outputs]:
    """The outputs of each piece, in the order of the batch."""
    by_job: dict[Job, list[int]] = {}
    for place, piece in enumerate(batch):
        by_job.setdefault(piece.job, []).append(place)
    parts = [_part(job, batch, places) for job, places in by_job.items()]
    found = each_of(graph.run(one_after_the_other(parts)))
    order = [place for places in by_job.values() for place in places]
    return [own for _, own in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _part(job: Job, batch: list[Piece], places: list[int]) -> Encoded:
    """The pieces of one request that a batch has; nothing is copied where it is its only one."""
    if len(job.outputs) == 1:
        return job.encoded
    return job.encoded.take(np.array([batch[place].index for place in places]))


def _hand_out(batch: list[Piece], outputs: list[Outputs], width: int) -> None:
    for piece, output in zip(batch, outputs, strict=True):
        job = piece.job
        job.outputs[piece.index] = output
        job.unfinished -= 1
        if not job.unfinished and not job.done.done():
            job.done.set_result(of_pieces(job.outputs, width))
