"""The batcher: pieces of concurrent requests share batches through one graph.

Nothing waits for company: a piece that finds a processor idle runs at once, and what comes while
all are busy makes up the next batches, one for each processor. Where much waits each has its next
batch at hand, so that none stands idle until the event loop, which has answers to write, gives it
one. All state lives on the event loop; only the graph's runs leave it, each for a thread.
"""

import asyncio
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
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
MUCH_TOKENS = SHARE_TOKENS // 2
"""What waits makes a good batch even if nothing more comes."""
CALL_TOKENS = 30
"""What a call of the graph costs beside its tokens; this and the next two for MiniLM in 8 bits."""
PLACE = 0.1
"""What a place in attention costs, whether a token stands there or not."""
PAIR = 0.005
"""What a place costs for each other of its piece."""


@dataclass(eq=False)
class Job:
    """One request's pieces, and the outputs of each that come in batch by batch."""

    encoded: Encoded
    outputs: list[Outputs]
    done: asyncio.Future[PieceOutputs]
    waiting: int
    unfinished: int
    since: float = field(default_factory=time.monotonic)
    has_begun: bool = False


@dataclass(frozen=True)
class Ran:
    """The outputs of a batch's pieces, when it began and how long it took."""

    outputs: list[Outputs]
    began: float
    seconds: float


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
        while self._pieces and self._has_room():
            self._start_batch(self._next_batch())

    def _has_room(self) -> bool:
        """Whether a processor is idle, or could have its next batch at hand."""
        each = 2 if self._waiting_tokens >= MUCH_TOKENS else 1
        return self._running < each * self._threads

    def _start_batch(self, batch: list[Piece], alone: bool = False) -> None:
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._engine, _run, self._graph, batch)
        self._running += 1
        run.add_done_callback(partial(self._ended, batch, alone))

    def _ended(self, batch: list[Piece], alone: bool, run: "asyncio.Future[Ran]") -> None:
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
        self._count(batch, run.result())
        _hand_out(batch, run.result().outputs, self._graph.width)

    def _count(self, batch: list[Piece], ran: Ran) -> None:
        lengths = [piece.length for piece in batch]
        rate = self._threads * sum(lengths) / max(1e-6, ran.seconds)
        self._tokens_per_s += 0.1 * (rate - self._tokens_per_s)
        self._metrics.batch_ran(lengths, self._graph.pads)
        for job in {piece.job: None for piece in batch}:
            if not job.has_begun:
                job.has_begun = True
                self._metrics.queue_wait.observe(ran.began - job.since)

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
        job.waiting -= 1
        if not job.waiting:
            self._jobs.remove(job)


@dataclass(frozen=True)
class Span:
    """Pieces that wait, from `start` to before `end` of them in order of length."""

    start: int
    end: int
    tokens: int
    longest: int
    work: float
    """What each of them costs, were there neither padding nor calls, in all."""

    @property
    def places(self) -> int:
        """Their tokens with padding."""
        return (self.end - self.start) * self.longest

    def overhead(self, pads: bool) -> float:
        """What each piece costs, in tokens, beside the work in it: its part of call and padding."""
        computed = self.places if pads else self.tokens
        whole = CALL_TOKENS + computed + _attention(self.places, self.longest)
        return (whole - self.work) / (self.end - self.start)

    def grown(self, pieces: Sequence[Piece]) -> "Iterator[Span]":
        """The spans with one more piece, at either side."""
        if self.end < len(pieces):
            own = pieces[self.end].length
            yield Span(self.start, self.end + 1, self.tokens + own, own, self.work + _work(own))
        if self.start:
            own = pieces[self.start - 1].length
            tokens, work = self.tokens + own, self.work + _work(own)
            yield Span(self.start - 1, self.end, tokens, self.longest, work)


def _attention(places: int, longest: int) -> float:
    """What attention costs, in tokens; it knows padding even where nothing else does."""
    return places * (PLACE + PAIR * longest)


def _work(length: int) -> float:
    return length + _attention(length, length)


def shared(pieces: Sequence[Piece], length: int, budget_tokens: int, pads: bool) -> tuple[int, int]:
    """The span of pieces, sorted by length, that share a batch with the oldest of this length.

    It grows to the side with the lesser overhead, as long as `budget_tokens` holds what is
    computed: with padding where the graph `pads`. Of all it has been, the best is taken.
    """
    own = bisect_right(pieces, length, key=_length) - 1
    best = Span(own, own + 1, length, length, _work(length))
    span: Span | None = best
    while span and span.end - span.start <= MOST_PIECES:
        best = min(best, span, key=lambda each: each.overhead(pads))
        fits = [
            each
            for each in span.grown(pieces)
            if (each.places if pads else each.tokens) <= budget_tokens
        ]
        span = min(fits, key=lambda each: each.overhead(pads), default=None)
    return best.start, best.end


def _length(piece: Piece) -> int:
    return piece.length


def _run(graph: Graph, batch: list[Piece]) -> Ran:
    """A batch, in the thread that calls."""
    began = time.monotonic()
    outputs = _outputs(graph, batch)
    return Ran(outputs, began, time.monotonic() - began)


def _outputs(graph: Graph, batch: list[Piece]) -> list[Outputs]:
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
