"""The app: a Release behind the native API, the Open Inference Protocol, metrics and pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from modelyard.core.project import Serve
from modelyard.runtime.runtime import Runtime
from modelyard.service import native, oip, pages
from modelyard.service.admission import Admission
from modelyard.service.metering import Meter
from modelyard.service.metrics import Metrics
from modelyard.service.observed import Observed, Route
from modelyard.service.problems import Refusals
from modelyard.service.release_info import ReleaseInfo


def create_app(
    runtime: Runtime, release: ReleaseInfo, limits: Serve, meter: Meter | None = None
) -> ASGIApp:
    """An app that serves one release; no file is read or fetched after this.

    With a meter each request needs a key and is counted; without, nobody is asked for one.
    """
    metrics = Metrics()
    images = [column.name for column in release.columns if column.is_binary]
    admission = Admission(runtime, limits, metrics, images)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()

    app = FastAPI(
        title=release.name,
        version=release.version,
        description=release.description or f"The model {release.name}, served by Modelyard.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    routers = (
        native.router(release, limits, admission),
        oip.health(release.server_version),
        oip.models(release, limits, admission),
        _operation(metrics),
        pages.router(release, limits),
    )
    for router in routers:
        app.include_router(router)
    refusals = Refusals(admission.retry_after_s)
    refusals.install(app)
    routes = [
        Route(r.path, r.path_regex, r.endpoint if "POST" in (r.methods or ()) else None)
        for router in routers
        for r in router.routes
        if isinstance(r, APIRoute)
    ]
    return Observed(app, metrics, routes, refusals, meter)


def _operation(metrics: Metrics) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/health", summary="Whether the service answers")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Counts and times, in Prometheus form",
    )
    async def measured() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
