"""The app: Releases behind the native API, the Open Inference Protocol, metrics and pages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from modelyard.core.errors import ServiceBusy
from modelyard.core.project import Serve
from modelyard.runtime.runtime import Runtime
from modelyard.service import customers_api, native, oip, openai_api, pages
from modelyard.service.access import right_for
from modelyard.service.admission import Admission
from modelyard.service.catalogue import Catalogue, Served
from modelyard.service.metering import Meter
from modelyard.service.metrics import Metrics
from modelyard.service.observed import Observed, Route
from modelyard.service.openapi import add_keys, problems
from modelyard.service.problems import Refusals
from modelyard.service.release_info import ReleaseInfo
from modelyard.service.request_log import Log


@dataclass
class Service:
    """What serves: the releases there are, and who may ask them."""

    catalogue: Catalogue = field(default_factory=Catalogue)
    metrics: Metrics = field(default_factory=Metrics)
    meter: Meter | None = None
    """With one each request needs a key and is counted; without, nobody is asked for one."""
    server_version: str = "0"
    log: Log | None = None
    more: list[APIRouter] = field(default_factory=list)
    """Routes beside those that answer rows."""
    loop: asyncio.AbstractEventLoop | None = None
    _documented: tuple[int, dict[str, Any]] = field(default_factory=lambda: (-1, {}))
    """The OpenAPI document, and as of which change of the catalogue."""

    def call(self, work: Callable[[], None]) -> None:
        """Do something where requests are answered, so that none sees it half done."""
        if self.loop is None:
            work()
        else:
            self.loop.call_soon_threadsafe(work)

    def add(self, runtime: Runtime, release: ReleaseInfo, limits: Serve) -> None:
        """Serve a release too."""
        images = [column.name for column in release.columns if column.is_binary]
        admission = Admission(runtime, limits, self.metrics, images)
        self.catalogue.add(Served(release, limits, admission))

    def app(self) -> ASGIApp:
        """The app; no file is read or fetched by it."""
        app = self._app()
        routers = (*self._described(), pages.router(self.catalogue, self.meter is not None))
        for router in routers:
            app.include_router(router)
        refusals = Refusals(self._retry_after_s)
        refusals.install(app)
        routes = [
            Route(
                r.path,
                r.path_regex,
                frozenset(r.methods or ()),
                r.endpoint if answers_rows(r) else None,
            )
            for router in routers
            for r in router.routes
            if isinstance(r, APIRoute)
        ]
        app.openapi = self._document  # type: ignore[method-assign]
        return Observed(app, self.metrics, routes, refusals, self.meter, self.log)

    def _app(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            yield
            self.catalogue.close()

        return FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)

    def _described(self) -> tuple[APIRouter, ...]:
        """The routes that the OpenAPI document has."""
        return (
            native.router(self.catalogue, self.metrics),
            openai_api.router(self.catalogue, self.metrics),
            oip.health(self.server_version),
            oip.models(self.catalogue, self.metrics),
            _operation(self),
            *((customers_api.router(self.meter.engine),) if self.meter else ()),
            *self.more,
        )

    def _document(self) -> dict[str, Any]:
        """The OpenAPI document of the releases that are loaded now, made once for these."""
        number, document = self._documented
        if number != self.catalogue.changes:
            number, document = self.catalogue.changes, self._made_document()
            self._documented = number, document
        return document

    def _made_document(self) -> dict[str, Any]:
        released = self.catalogue.all()
        first = released[0].info if len(released) == 1 else None
        described = f"The model {first.name}, served by Modelyard." if first else ""
        app = FastAPI(
            title=first.name if first else "Modelyard",
            version=first.version if first else self.server_version,
            description=first.description or described if first else "Models, served by Modelyard.",
        )
        for router in self._described():
            app.include_router(router)
        document = app.openapi()
        if self.meter:
            add_keys(document)
        return document

    def unready(self) -> str:
        """Why no rows can be answered now; "" where they can."""
        if not self.catalogue.all():
            return "No release is loaded; deploy one, or ask again a little later."
        if self.meter and self.meter.is_away:
            return "The ledger's database is away, and nothing is answered uncounted."
        return ""

    def _retry_after_s(self) -> int:
        """When a request that was refused as busy may come again."""
        return max((each.admission.retry_after_s() for each in self.catalogue.all()), default=1)


def create_app(
    runtime: Runtime, release: ReleaseInfo, limits: Serve, meter: Meter | None = None
) -> ASGIApp:
    """An app that serves one release."""
    service = Service(meter=meter, server_version=release.server_version)
    service.add(runtime, release, limits)
    return service.app()


def answers_rows(route: APIRoute) -> bool:
    """Whether a route answers rows: these take the short way, and are counted."""
    return "POST" in (route.methods or ()) and right_for("POST", route.path) == "predict"


def _operation(service: Service) -> APIRouter:
    routes = APIRouter(tags=["operation"])

    @routes.get("/health", summary="Whether the service answers")
    @routes.get("/livez", summary="Whether the process lives")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", responses=problems(503), summary="Whether it takes requests for rows")
    async def ready() -> Response:
        if reason := service.unready():
            raise ServiceBusy(reason)
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Counts and times, in Prometheus form",
    )
    async def measured() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
