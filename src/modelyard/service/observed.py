"""What stands round every request: counting it, HEAD as GET, security headers, a short way.

A framework's layers cost several times what the answer of a small model does. So the routes that
answer rows are called here straight away; the framework still routes all others, and documents
these as well.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.service.access import PUBLIC, right_for
from modelyard.service.metering import CALLER, REQUEST_ID, VISIT, Meter
from modelyard.service.metrics import Metrics
from modelyard.service.problems import GONE, METHODS, Refusals
from modelyard.service.request_log import Log, line_of

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
OTHER = "other"
ROUTE = "modelyard.route"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A path that the app knows; `answers` is called for a POST, past the framework, if given."""

    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    answers: Endpoint | None = None


class Observed:
    """An ASGI app that counts the requests of another; each is counted by its route's path."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Iterable[Route],
        refusals: Refusals,
        meter: Meter | None = None,
        log: Log | None = None,
    ):
        self._log = log
        self._app = app
        self._meter = meter
        self._metrics = metrics
        self._routes = sorted(routes, key=lambda route: route.answers is None)
        self._refusals = refusals
        self._answers = {
            route.path: self._metered(route.path, route.answers)
            for route in self._routes
            if route.answers
        }
        self._methods: dict[str, list[str]] = {}
        for route in self._routes:
            known = self._methods.get(route.path, ())
            self._methods[route.path] = sorted(route.methods.union(known))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status, own = 500, scope

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope[VISIT] = own.get(VISIT)  # for what stands around
                message["headers"] = with_security(message.get("headers", []))
            await send(message)

        method = scope["method"]
        route, found = self._route(scope["path"])
        try:
            if method == "POST" and route and route.answers and found:
                own = {**scope, "path_params": found.groupdict()}
                await self._answer(self._answers[route.path], Request(own, receive), receive, sent)
            else:
                inner = {**scope, "method": "GET"} if method == "HEAD" else scope
                methods = self._methods[route.path] if route else []
                app = self._closed if self._is_closed(route, method) else self._app
                known = {ROUTE: route and route.path, METHODS: methods}
                await app({**inner, **known}, receive, sent)
        finally:
            taken = time.perf_counter() - start
            path = route.path if route else OTHER
            self._metrics.answered(path, method, status, taken)
            if self._log:
                self._log(line_of(path, method, status, taken, own.get(VISIT)))

    def _is_closed(self, route: Route | None, method: str) -> bool:
        """Whether a key is asked for; not by a public path for a method that it does not take."""
        if not self._meter or not route:
            return False
        return route.path not in PUBLIC or method in self._methods[route.path]

    async def _closed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, for those whose key has the right to the route."""
        right = right_for(scope["method"], scope[ROUTE])
        request = Request(scope, receive)
        try:
            if right and self._meter:
                scope[CALLER] = await self._meter.caller(request, right)
        except Exception as error:
            response = await self._refusals.response(request, error)
            await response(scope, receive, send)
            if not self._refusals.is_known(error):
                raise
            return
        await self._app(scope, receive, send)

    def _metered(self, path: str, answers: Endpoint) -> Endpoint:
        if self._meter is None:
            return answers
        return partial(self._meter.answered, path, partial(_unless_left, answers))

    async def _answer(
        self, answers: Endpoint, request: Request, receive: Receive, send: Send
    ) -> None:
        """What the framework does for an endpoint, errors too; others are raised after a 500."""
        failed: Exception | None = None
        try:
            response = await answers(request)
        except Exception as error:  # noqa: BLE001 – any is told
            response = await self._refusals.response(request, error)
            failed = None if self._refusals.is_known(error) else error
            if visit := request.scope.get(VISIT):
                response.headers[REQUEST_ID] = visit.id
        await response(request.scope, receive, send)
        if failed:
            raise failed

    def _route(self, path: str) -> tuple[Route | None, re.Match[str] | None]:
        for route in self._routes:
            if found := route.pattern.match(path):
                return route, found
        return None, None


async def _unless_left(answers: Endpoint, request: Request) -> Response:
    """The answer; ClientDisconnect where nobody is left to get it, so that it is not counted."""
    response = await answers(request)
    if (has_gone := request.scope.get(GONE)) and has_gone():
        raise ClientDisconnect
    return response


def with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Response headers with those that browsers heed added; a policy of their own stays."""
    own = list(headers)
    has_policy = any(name.lower() == API_POLICY[0] for name, _ in own)
    return own + HEADERS + ([] if has_policy else [API_POLICY])
