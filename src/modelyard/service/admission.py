"""Admission: the one way from rows to answers, and the one place where usage is counted.

Every family of the API goes through `Admission.predict`. Rows are reserved on admission and
settled on completion, so metering has one choke-point.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import RequestInvalid, RequestTooLarge, ServiceBusy
from modelyard.core.project import Serve
from modelyard.ledger.limits import Usage
from modelyard.runtime.encoded import Encoded, RowOutputs, TokenOutputs, of_rows
from modelyard.runtime.index import unit
from modelyard.runtime.runtime import Answer, Pools, Runtime
from modelyard.service.batcher import Batcher
from modelyard.service.bodies import off_loop
from modelyard.service.encoder import Encoder
from modelyard.service.metering import Visit
from modelyard.service.metrics import Metrics

Row = Mapping[str, Any]
Made = TypeVar("Made")
MOST_REQUESTS_ROWS = 8
"""Rows admitted at once, in requests of the largest size."""
MOST_WAITING_TOKENS = 1 << 18
BYTES_IN_JSON = 20
"""About what a score takes in an answer."""


@dataclass
class Ticket:
    """What a request has reserved, until it is left; `usage` is set once it has been answered."""

    rows: int
    settle: "Callable[[Ticket], None]"
    usage: Usage | None = None

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *_: object) -> None:
        self.settle(self)


class Admission:
    """Takes rows in, within the limits, and gives their answers and what they used."""

    def __init__(
        self, runtime: Runtime, limits: Serve, metrics: Metrics, images: Sequence[str] = ()
    ):
        self._runtime = runtime
        self._images = images
        self._limits = limits
        self._metrics = metrics
        self._most_rows = MOST_REQUESTS_ROWS * limits.max_rows
        self._admitted_rows = 0
        self._batcher = Batcher(runtime.graph, metrics, MOST_WAITING_TOKENS)
        self._encoder = Encoder(runtime)
        self._unwatch = metrics.watch(metrics.admitted_rows, lambda: self._admitted_rows)

    async def predict(
        self, rows: Sequence[Row], visit: Visit | None = None, is_counted: bool = True
    ) -> tuple[list[Answer], Usage]:
        """Answers for rows, in their order, and what they used, which the visit is told too.

        What answers nobody is not counted.
        Raises BadInput, ServiceBusy, and what reserving for the visit raises.
        """

        async def decoded(found: RowOutputs, pools: Pools | None) -> list[Answer]:
            return await off_loop(self._size(found, pools), self._runtime.decode, found, pools)

        return await self._answered(rows, visit, decoded, is_counted)

    async def vectors(
        self, rows: Sequence[Row], visit: Visit | None = None
    ) -> tuple[NDArray[np.float32], Usage]:
        """The vectors (B, W) of rows, of length 1, and what they used.

        Raises RequestInvalid where the release has no vectors, and what `predict` raises.
        """
        if self._runtime.index is None:
            raise RequestInvalid(
                f"The release {self._runtime.spec.name} answers with "
                f"{self._runtime.spec.target.kind} and has no vectors to give; releases of kind "
                "match have."
            )

        async def vectors(found: RowOutputs, pools: Pools | None) -> NDArray[np.float32]:
            assert not isinstance(found, TokenOutputs)
            return unit(found)

        return await self._answered(rows, visit, vectors)

    async def _answered(
        self,
        rows: Sequence[Row],
        visit: Visit | None,
        made: Callable[[RowOutputs, Pools | None], Awaitable[Made]],
        is_counted: bool = True,
    ) -> tuple[Made, Usage]:
        """What is made of the outputs of rows, and what they used."""
        check_limits(rows, self._limits, self._runtime.columns.words)
        self._batcher.refuse_if_full()  # before any work is done for them
        with self._admit(len(rows)) as ticket:
            encoded, pools = await self._encoder.encoded(rows)
            usage = self._usage(rows, encoded)
            if visit:
                await visit.reserve(usage)
            done = await self._batcher.outputs(encoded)
            answers = await made(of_rows(done.outputs, encoded), pools)
            used = usage._replace(compute_us=round(1e6 * done.compute_s))
            ticket.usage = used if is_counted else None
            if visit:
                visit.settle(used, round(1e6 * done.queue_s))
            return answers, used

    def _usage(self, rows: Sequence[Row], encoded: Encoded) -> Usage:
        images = sum(row.get(name) is not None for row in rows for name in self._images)
        return Usage(rows=len(rows), tokens=int(encoded.lengths.sum()), images=images)

    def _size(self, found: RowOutputs, pools: Pools | None) -> int:
        """About how much work it is to make answers of outputs."""
        numbers = found.values if isinstance(found, TokenOutputs) else found
        index = self._runtime.index
        named = sum(len(pool.without) for pool in pools or ())
        return BYTES_IN_JSON * (numbers.size * (len(index.ids) if index else 1) + named)

    def _admit(self, rows: int) -> Ticket:
        if self._admitted_rows + rows > self._most_rows:
            raise ServiceBusy(
                f"The service is working on {self._admitted_rows:,} rows and takes "
                f"{self._most_rows:,} at once; send the request again a little later."
            )
        self._admitted_rows += rows
        return Ticket(rows, self._settle)

    def _settle(self, ticket: Ticket) -> None:
        self._admitted_rows -= ticket.rows
        if ticket.usage:
            self._metrics.rows.inc(ticket.usage.rows)
            self._metrics.tokens.inc(ticket.usage.tokens)

    def retry_after_s(self) -> int:
        """When a request that was refused as busy may come again."""
        return self._batcher.wait_s()

    def close(self) -> None:
        """Let go of the threads, if it has not been done; what was admitted has been answered."""
        if self._batcher.close():  # from then on it takes no more, so nothing new is encoded either
            self._encoder.close()
            self._unwatch()


def check_limits(
    rows: Sequence[Row], limits: Serve, words: Mapping[str, Callable[[Any], str]]
) -> None:
    """Refuse rows over the limits: RequestTooLarge; or no rows: RequestInvalid.

    `words` gives the text in a column's values.
    """
    if not rows:
        raise RequestInvalid(f"The request has no rows; give 1 to {limits.max_rows:,}.")
    if len(rows) > limits.max_rows:
        raise RequestTooLarge(
            f"The request has {len(rows):,} rows and this service takes {limits.max_rows:,} at "
            "once; send them in several requests."
        )
    for number, row in enumerate(rows, start=1):
        for column, words_in in words.items():
            value = row.get(column)
            length = len(words_in(value)) if isinstance(value, str) else 0
            if length > limits.max_characters:
                raise RequestTooLarge(
                    f"Row {number}, column {column!r} has {length:,} characters and this "
                    f"service takes {limits.max_characters:,}; shorten or split the text."
                )
