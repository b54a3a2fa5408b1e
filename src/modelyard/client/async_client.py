"""The client that lets others run while it waits, on asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from modelyard.client.calls import Calls, Row, batches, check_at_least_one
from modelyard.client.exchange import Attempt, Call, Outcome, Patience
from modelyard.client.http import service_url
from modelyard.client.messages import Response
from modelyard.client.refusals import no_answer
from modelyard.client.replies import Answer, Model, Prediction

Result = TypeVar("Result")


class AsyncClient:
    """Asks a service, from one event loop.

    An attempt takes at most `timeout_s`, from connecting to the answer's last byte; after it has
    failed, at most `retries` more are made, none of which ends more than `total_s` after the first
    began. `sleep` waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 5,
        total_s: float = 300.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ):
        self._calls = Calls(service_url(url), key, Patience(timeout_s, retries, total_s))
        self._sleep = sleep
        import httpx

        self._http = httpx.AsyncClient()

    async def models(self) -> list[Model]:
        """The models of the service; raises ApiError."""
        return await self._result(self._calls.models())

    async def model(self, name: str) -> Model:
        """A model: its columns, labels and limits; raises ApiError."""
        return await self._result(self._calls.model(name))

    async def predict(
        self, name: str, rows: Iterable[Row], idempotency_key: str | None = None
    ) -> Prediction:
        """Answers for the rows of one request; raises ApiError.

        It is counted once, however often it had to be sent; with an idempotency key of your own
        also over several calls.
        """
        return await self._result(self._calls.predict(name, rows, idempotency_key))

    def predict_many(
        self, name: str, rows: Iterable[Row], batch_rows: int = 64, at_once: int = 4
    ) -> AsyncGenerator[Answer, None]:
        """An answer for each of any number of rows, in their order; raises ApiError.

        At most `at_once` requests are on their way or wait to be read; no more rows are taken
        meanwhile. An iteration that ends early lets go of them.
        """
        check_at_least_one(batch_rows=batch_rows, at_once=at_once)
        return self._streamed(name, rows, batch_rows, at_once)

    async def _streamed(
        self, name: str, rows: Iterable[Row], batch_rows: int, at_once: int
    ) -> AsyncGenerator[Answer, None]:
        under_way: deque[asyncio.Task[Prediction]] = deque()
        rest = batches(rows, batch_rows)
        try:
            while True:
                while len(under_way) < at_once and (batch := next(rest, None)):
                    under_way.append(asyncio.create_task(self.predict(name, batch)))
                if not under_way:
                    return
                first = await under_way[0]
                for answer in first.predictions:
                    yield answer
                under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _result(self, call: Call[Result]) -> Result:
        try:
            attempt = next(call)
            while True:
                attempt = call.send(await self._outcome(attempt))
        except StopIteration as ended:
            result: Result = ended.value
            return result

    async def _outcome(self, attempt: Attempt) -> Outcome:
        """What comes of an attempt."""
        import httpx

        if attempt.wait_s:
            await self._sleep(attempt.wait_s)
        request = attempt.request
        try:
            async with asyncio.timeout(attempt.timeout_s):
                got = await self._http.request(
                    request.method,
                    request.url,
                    headers=dict(request.headers),
                    content=request.body,
                    timeout=None,
                )
        except (httpx.RequestError, TimeoutError) as error:
            return no_answer(request, error)
        return Response(got.status_code, got.headers, got.content)
