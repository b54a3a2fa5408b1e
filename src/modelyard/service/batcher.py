"""The batcher: pieces of concurrent requests share batches through one graph.

Nothing waits for company: a piece that finds a processor idle runs at once, and what comes while
all are busy makes up the next batches. A thread for each processor takes a batch of what waits as
soon as it has run its last one, so none stands idle until the event loop, which has answers to
write, gives it one. What waits is guarded by a lock; all else lives on the event loop.
"""

import asyncio
import os
import sys
import threading
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
from modelyard.runtime.graph import SHARE_TOKENS, Graph
from modelyard.service.metrics import Metrics

Outputs = NDArray[np.float32]
MOST_PIECES = 256
MOST_WAIT_SECONDS = 2.0
"""What would wait longer for its first batch is better told at once to come again."""
LEAST_AHEAD_TOKENS = 2048
NICE = 10
"""Added to the niceness of a graph's threads, who get a tenth of a processor beside others."""
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
    done: "asyncio.Future[Done]"
    waiting: int
    waiting_tokens: int
    unfinished: int
    since: float = field(default_factory=time.monotonic)
    queue_s: float | None = None
    compute_s: float = 0.0

    @property
    def ahead_tokens(self) -> int:
        """What it computes before it is another's turn, at most."""
        return min(self.waiting_tokens, SHARE_TOKENS)


@dataclass(frozen=True)
class Done:
    """The outputs of a request, how long it waited, and its share of the time of its batches."""

    outputs: PieceOutputs
    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class Ran:
    """The outputs of a batch's pieces, or what broke; when it began and how long it took."""

    outputs: list[Outputs | Exception]
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
        self._ahead_tokens = 0
        self._number = 0
        self._tokens_per_s = 10_000.0
        self._idle = 0
        self._is_due = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._unwatch = (
            metrics.watch(metrics.queue_requests, lambda: len(self._jobs)),
            metrics.watch(metrics.queue_pieces, lambda: len(self._pieces)),
            metrics.watch(metrics.queue_tokens, lambda: self._waiting_tokens),
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"graph-{number}", daemon=True)
            for number in range(graph.threads)
        ]
        for thread in self._threads:
            thread.start()

    async def outputs(self, encoded: Encoded) -> Done:
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

    def refuse_if_full(self, tokens: int = 1) -> None:
        """Raise ServiceBusy where so many tokens more would wait too long, or be too many.

        Also where the release has gone, and no thread is left that would run what joins.
        """
        if self._is_closed:
            raise ServiceBusy("The release has been unloaded; send the request again.")
        ahead = self._ahead_tokens + min(tokens, SHARE_TOKENS)
        is_late = ahead > max(LEAST_AHEAD_TOKENS, MOST_WAIT_SECONDS * self._tokens_per_s)
        if self._pieces and (is_late or self._waiting_tokens + tokens > self._most_waiting_tokens):
            raise ServiceBusy(
                f"The service has {self._waiting_tokens:,} tokens of {len(self._jobs):,} other "
                "requests waiting, and takes no more for now; send the request again a little "
                "later."
            )

    def close(self) -> bool:
        """Let go of the threads, once what waits has run; False where that was asked before."""
        with self._changed:
            if self._is_closed:
                return False
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for unwatch in self._unwatch:
            unwatch()
        return True

    def _join(self, encoded: Encoded) -> Job:
        tokens = int(encoded.lengths.sum())
        count = len(encoded.lengths)
        loop = asyncio.get_running_loop()
        none = np.empty(0, np.float32)
        job = Job(encoded, [none] * count, loop.create_future(), count, tokens, count)
        with self._changed:
            self.refuse_if_full(tokens)
            for index, length in enumerate(encoded.lengths.tolist()):
                self._number += 1
                piece = Piece(job, index, length, self._number)
                insort(self._pieces, piece, key=lambda piece: piece.order)
            self._jobs.append(job)
            self._waiting_tokens += tokens
            self._ahead_tokens += job.ahead_tokens
        if not self._is_due:  # after all that join in this turn of the loop
            self._is_due = True
            loop.call_soon(self._wake)
        return job

    def _leave(self, job: Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._pieces = [piece for piece in self._pieces if piece.job is not job]
                self._waiting_tokens -= job.waiting_tokens
                self._ahead_tokens -= job.ahead_tokens

    def _wake(self) -> None:
        self._is_due = False
        with self._changed:
            self._changed.notify(len(self._pieces))

    def _work(self) -> None:
        """Run batches, in a thread of its own, as long as the service lives."""
        _stand_back()
        while batch := self._taken():
            ran = _run(self._graph, batch)
            loop = batch[0].job.done.get_loop()
            try:
                loop.call_soon_threadsafe(self._ended, batch, ran)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                return

    def _taken(self) -> list[Piece]:
        """The next batch, once there is one; none once the service ends."""
        with self._changed:
            self._idle += 1
            while not self._pieces and not self._is_closed:
                self._changed.wait()
            batch = self._next_batch() if self._pieces else []
            self._idle -= 1
            return batch

    def _next_batch(self) -> list[Piece]:
        """A batch with the longest piece of the request whose turn it is."""
        self._jobs.rotate(-1)
        longest = max(piece.length for piece in self._pieces if piece.job is self._jobs[-1])
        share = self._waiting_tokens // self._idle if self._idle > 1 else SHARE_TOKENS
        budget = min(SHARE_TOKENS, share)
        start, end = shared(self._pieces, longest, budget, self._graph.pads)
        batch = self._pieces[start:end]
        del self._pieces[start:end]
        for piece in batch:
            self._take(piece)
        return batch

    def _take(self, piece: Piece) -> None:
        job = piece.job
        self._waiting_tokens -= piece.length
        self._ahead_tokens -= job.ahead_tokens
        job.waiting_tokens -= piece.length
        self._ahead_tokens += job.ahead_tokens
        job.waiting -= 1
        if not job.waiting:
            self._jobs.remove(job)

    def _ended(self, batch: list[Piece], ran: Ran) -> None:
        """Hand out a batch's outputs, or what broke."""
        if not any(isinstance(each, Exception) for each in ran.outputs):
            self._count(batch, ran)
        _hand_out(batch, ran.outputs, self._graph.width)

    def _count(self, batch: list[Piece], ran: Ran) -> None:
        lengths = [piece.length for piece in batch]
        rate = len(self._threads) * sum(lengths) / max(1e-6, ran.seconds)
        self._tokens_per_s += 0.1 * (rate - self._tokens_per_s)
        self._metrics.batch_ran(lengths, self._graph.pads)
        token_s = ran.seconds / sum(lengths)
        for piece in batch:
            job = piece.job
            job.compute_s += token_s * piece.length
            if job.queue_s is None:
                job.queue_s = ran.began - job.since
                self._metrics.queue_wait.observe(job.queue_s)


def _stand_back() -> None:
    """Have this thread give way to those that read, settle and answer, which have little to do.

    Otherwise each of them waits for a slice of a processor's time, 3 ms, whenever it is woken.
    On Linux a thread's niceness is its own (sched(7), setpriority(2)).
    """
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, own) + NICE
            os.setpriority(os.PRIO_PROCESS, own, nice)


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
    """A batch, in the thread that calls; of one that broke each request is run alone."""
    began = time.monotonic()
    outputs: list[Outputs | Exception]
    try:
        outputs = [*_outputs(graph, batch)]
    except BaseException as error:  # noqa: BLE001 – one request's rows may have broken it
        outputs = _each_alone(graph, batch, error)
    return Ran(outputs, began, time.monotonic() - began)


def _each_alone(
    graph: Graph, batch: list[Piece], error: BaseException
) -> list[Outputs | Exception]:
    """The outputs of each piece; for pieces of a request that breaks alone, too, what broke."""
    jobs = list({piece.job: None for piece in batch})
    if len(jobs) == 1:
        return [error if isinstance(error, Exception) else RuntimeError(repr(error))] * len(batch)
    found: dict[Piece, Outputs | Exception] = {}
    for job in jobs:
        own = [piece for piece in batch if piece.job is job]
        found |= dict(zip(own, _run(graph, own).outputs, strict=True))
    return [found[piece] for piece in batch]


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


def _hand_out(batch: list[Piece], outputs: list[Outputs | Exception], width: int) -> None:
    for piece, output in zip(batch, outputs, strict=True):
        job = piece.job
        job.unfinished -= 1
        if job.done.done():
            continue
        if isinstance(output, Exception):
            job.done.set_exception(output)
            continue
        job.outputs[piece.index] = output
        if not job.unfinished:
            whole = of_pieces(job.outputs, width)
            job.done.set_result(Done(whole, job.queue_s or 0.0, job.compute_s))
