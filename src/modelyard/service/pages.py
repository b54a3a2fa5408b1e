"""The pages: try-it, API documentation, report. Nothing on them comes from elsewhere."""

from dataclasses import asdict
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response

from modelyard.service.asking import looked_at, seen
from modelyard.service.catalogue import Catalogue, Served, first_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HTML = "text/html; charset=utf-8"
TYPES = {
    "html": HTML,
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
ASSETS = (
    "curl.js",
    "docs.css",
    "docs.js",
    "image.js",
    "look.css",
    "mark.svg",
    "try.css",
    "try.js",
    "words.js",
)


def router(catalogue: Catalogue, is_keyed: bool) -> APIRouter:
    """The routes of the pages; they are no part of the API's description.

    `?model=NAME` says which release a page is about; without, it is the first. Where the service
    `is_keyed`, the try-it page asks for a key.
    """
    routes = APIRouter(include_in_schema=False)
    assets = {name: _file(name) for name in ASSETS}

    @routes.get("/")
    async def try_it() -> Response:
        return _answer(_file("try.html"), "html", POLICY)

    @routes.get("/docs")
    async def documentation() -> Response:
        return _answer(_file("docs.html"), "html", POLICY)

    @routes.get("/report")
    async def report(request: Request, model: str = "") -> Response:
        release = _chosen(catalogue, request, model).info
        if release.report is None or not release.report.is_file():
            raise HTTPException(404, "This release has no report.")
        return FileResponse(release.report, headers=_headers(REPORT_POLICY), media_type=HTML)

    @routes.get("/assets/release.json")
    async def described(request: Request, model: str = "") -> Response:
        names = list(first_of(catalogue.all()))
        shown = _shown(_chosen(catalogue, request, model)) | {"models": names, "keyed": is_keyed}
        return JSONResponse(shown, headers=_headers(POLICY))

    @routes.get("/assets/{name}")
    async def asset(name: str) -> Response:
        if name not in assets:
            raise HTTPException(404)
        return _answer(assets[name], name.rpartition(".")[2], POLICY)

    return routes


def _chosen(catalogue: Catalogue, request: Request, model: str) -> Served:
    released = seen(catalogue, request)
    if not model and released:
        return released[0]
    return looked_at(catalogue, request, model)


def _shown(served: Served) -> dict[str, Any]:
    release = served.info
    return release.to_json() | {
        "inputs": [asdict(column) for column in release.columns],
        "limits": served.limits.model_dump(),
        "example": release.example_row,
        "examples": [dict(row) for row in release.examples],
        "report": release.report is not None,
    }


def _file(name: str) -> bytes:
    return files("modelyard.service").joinpath("page", name).read_bytes()


def _answer(content: bytes, suffix: str, policy: str) -> Response:
    return Response(content, headers=_headers(policy), media_type=TYPES[suffix])


def _headers(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
