"""What stands round every request: counting it, HEAD as GET, and security headers."""

import re
import time
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.service.metrics import Metrics

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Observed:
    """An ASGI app that counts the requests of another; each is counted by its route's path."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Iterable[tuple[str, re.Pattern[str]]]
    ):
        self._app = app
        self._metrics = metrics
        self._routes = list(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = with_security(message.get("headers", []))
            await send(message)

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, receive, sent)
        finally:
            route = self._route(scope["path"])
            self._metrics.requests.labels(route, scope["method"], status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _route(self, path: str) -> str:
        return next((name for name, pattern in self._routes if pattern.match(path)), "other")


def with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Response headers with those that browsers heed added; a policy of their own stays."""
    own = list(headers)
    has_policy = any(name.lower() == API_POLICY[0] for name, _ in own)
    return own + HEADERS + ([] if has_policy else [API_POLICY])
