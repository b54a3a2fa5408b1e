"""What the service counts, in Prometheus form; of several workers, all together."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import Gauge as AnyGauge
from prometheus_client.multiprocess import MultiProcessCollector

from modelyard.service.workers import is_worker

REFRESH_SECONDS = 0.5
Gauge = partial(AnyGauge, multiprocess_mode="livesum")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PIECES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counts of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._is_shared = is_worker()
        self._watched: dict[AnyGauge, list[Callable[[], int]]] = {}
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        own = self.registry
        self.requests = Counter(
            "modelyard_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=own,
        )
        self.seconds = Histogram(
            "modelyard_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self.rows = Counter("modelyard_rows", "Rows answered.", registry=own)
        self.tokens = Counter("modelyard_tokens", "Tokens of the rows answered.", registry=own)
        self.shadow_rows = _shadow_rows(own)
        self.admitted_rows = Gauge(
            "modelyard_admitted_rows", "Rows admitted and not yet answered.", registry=own
        )
        self.queue_requests = Gauge(
            "modelyard_queue_requests", "Requests with pieces that wait.", registry=own
        )
        self.queue_pieces = Gauge("modelyard_queue_pieces", "Pieces that wait.", registry=own)
        self.queue_tokens = Gauge("modelyard_queue_tokens", "Tokens that wait.", registry=own)
        self.queue_wait = Histogram(
            "modelyard_queue_wait_seconds",
            "From the queue to a request's first batch.",
            buckets=SECONDS,
            registry=own,
        )
        self.batch_pieces = Histogram(
            "modelyard_batch_pieces", "Pieces in a batch.", buckets=PIECES, registry=own
        )
        self.batch_tokens = Counter(
            "modelyard_batch_tokens", "Tokens run through the graph, with padding.", registry=own
        )
        self.padding_tokens = Counter(
            "modelyard_padding_tokens", "Tokens of padding run through the graph.", registry=own
        )

    def watch(self, gauge: AnyGauge, count: Callable[[], int]) -> Callable[[], None]:
        """Have a gauge tell the sum of such counts without cost to requests: when it is asked for.

        Where workers tell for each other, theirs are half a second old at most. Returns what
        takes the count out again.
        """
        is_first = not self._watched
        counts = self._watched.setdefault(gauge, [])
        counts.append(count)
        if not self._is_shared:
            gauge.set_function(partial(_sum, counts))
        elif is_first:
            threading.Thread(target=self._refresh_always, daemon=True).start()
        return partial(counts.remove, count)

    def _refresh_always(self) -> None:
        while True:
            self._refresh()
            time.sleep(REFRESH_SECONDS)

    def _refresh(self) -> None:
        for gauge, counts in list(self._watched.items()):
            gauge.set(_sum(counts))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = (route, method, status)
        if key not in self._answered:
            self._answered[key] = (self.requests.labels(*key), self.seconds.labels(route))
        requests, taken = self._answered[key]
        requests.inc()
        taken.observe(seconds)

    def batch_ran(self, lengths: Sequence[int], pads: bool) -> None:
        """Count a batch by the lengths of its pieces, which are computed with padding or not."""
        padded = max(lengths) * len(lengths) if pads else sum(lengths)
        self.batch_pieces.observe(len(lengths))
        self.batch_tokens.inc(padded)
        self.padding_tokens.inc(padded - sum(lengths))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        if not self._is_shared:
            return generate_latest(self.registry)
        self._refresh()
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
        return generate_latest(of_all)


def _sum(counts: Sequence[Callable[[], int]]) -> int:
    return sum(count() for count in list(counts))


def _shadow_rows(registry: CollectorRegistry) -> Counter:
    return Counter(
        "modelyard_shadow_rows",
        "Rows that a release was asked beside another, and whether it said the same.",
        ["release", "version", "outcome"],
        registry=registry,
    )
