"""Traces of requests, by OpenTelemetry: where an endpoint for them is named, and only there.

The endpoint, headers and names are those of OpenTelemetry's own environment variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, …). A trace that a caller began goes on here. What
was asked, who somebody is and addresses are in none.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.core.errors import ExtraMissing
from modelyard.service.metering import VISIT, Visit

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = "health,livez,readyz,metrics,assets"
PERSONAL = ("net.peer.", "client.", "user_agent", "http.user_agent", "http.client_ip", "url.query")


def traced(app: ASGIApp) -> tuple[ASGIApp, Callable[[], None]]:
    """The app with traces where an endpoint is named, and what sends the last of them.

    Raises ExtraMissing.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return app, lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise ExtraMissing(
            "Traces need OpenTelemetry; install it with `pip install 'modelyard[traces]'`, or "
            f"leave {ENDPOINTS[0]} out."
        ) from None
    named = os.environ.get("OTEL_SERVICE_NAME", "modelyard")
    provider = TracerProvider(resource=Resource.create({"service.name": named}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    around = OpenTelemetryMiddleware(
        _Phases(app, provider.get_tracer("modelyard")),
        excluded_urls=UNTRACED,
        tracer_provider=provider,
        server_request_hook=_forget,
        exclude_spans=["receive", "send"],
    )
    return around, provider.shutdown


def _forget(span: Any, scope: Scope) -> None:
    """Take out of a span what says who asks."""
    if span and span.is_recording():
        for name in [n for n in span.attributes if n.startswith(PERSONAL)]:
            span.set_attribute(name, "")


class _Phases:
    """Tells of a request's release, and how long it waited and was computed."""

    def __init__(self, app: ASGIApp, tracer: Any):
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it before its answer ends its span."""

        async def sent(message: Message) -> None:
            visit: Visit | None = scope.get(VISIT)
            if visit and message["type"] == "http.response.start":
                self._tell(visit)
            await send(message)

        await self._app(scope, receive, sent)

    def _tell(self, visit: Visit) -> None:
        from opentelemetry import trace

        span = trace.get_current_span()
        span.update_name(f"POST {visit.route}")
        for name, value in (
            ("http.route", visit.route),
            ("modelyard.request", visit.id),
            ("modelyard.key", visit.caller.key_id),
            ("modelyard.release", f"{visit.release}@{visit.version}"),
            ("modelyard.rows", visit.usage.rows),
            ("modelyard.tokens", visit.usage.tokens),
        ):
            span.set_attribute(name, value)
        ends_ns = time.time_ns()
        for name, length_us in (("compute", visit.usage.compute_us), ("queue", visit.queue_us)):
            starts_ns = ends_ns - 1000 * length_us
            self._tracer.start_span(name, start_time=starts_ns).end(ends_ns)
            ends_ns = starts_ns
