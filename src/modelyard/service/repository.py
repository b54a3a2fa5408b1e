"""The model repository (Triton's extension of OIP): what there is, load and unload.

https://github.com/triton-inference-server/server, docs/protocol/extension_model_repository.md
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, FailFast
from sqlalchemy import Engine
from starlette.responses import JSONResponse, Response

from modelyard.core.errors import RequestInvalid
from modelyard.ledger import deployments
from modelyard.service.bodies import parse_json, read_body, validated
from modelyard.service.catalogue import AT, Catalogue
from modelyard.service.following import Follower
from modelyard.service.openapi import json_body, oip_errors

MOST_BODY_BYTES = 1 << 20
Found = Mapping[tuple[str, str], Path]


class IndexRequest(BaseModel):
    """Which models to list."""

    model_config = ConfigDict(extra="ignore")
    ready: bool = False


class LoadRequest(BaseModel):
    """Parameters of a load; none has a meaning here."""

    model_config = ConfigDict(extra="ignore")
    parameters: Annotated[dict[str, Any], FailFast()] = {}


class IndexReply(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: str
    reason: str = ""


class Nothing(BaseModel):
    """It is done."""


@dataclass(frozen=True)
class Repository:
    """The releases that may be loaded: those placed in the ledger, and those in a folder."""

    engine: Engine
    follower: Follower
    catalogue: Catalogue
    found: Callable[[], Found] = dict

    def index(self, only_ready: bool) -> list[dict[str, str]]:
        """All of them, and whether each is served."""
        told = {(each.info.name, each.info.version): ("READY", "") for each in self.catalogue.all()}
        if not only_ready:
            known = [(p.name, p.version) for p in deployments.standing(self.engine).placements]
            for place in (*known, *self.found()):
                reason = self.follower.problems.get(place, "unloaded")
                told.setdefault(place, ("UNAVAILABLE", reason))
        return [
            {"name": name, "version": version, "state": state, "reason": reason}
            for (name, version), (state, reason) in sorted(told.items())
        ]

    def load(self, text: str) -> None:
        """Have every worker load a release; raises what stands against it."""
        name, _, version = text.partition(AT)
        wanted = {
            place: folder
            for place, folder in self.found().items()
            if place[0] == name and version in ("", place[1])
        }
        for place, folder in wanted.items():
            deployments.place(self.engine, *place, folder)
        generation = deployments.load(self.engine, name, version or None)
        deployments.await_followed(self.engine, generation)
        for place, reason in self.follower.problems.items():
            if place[0] == name and version in ("", place[1]):
                raise RequestInvalid(reason)

    def unload(self, text: str) -> None:
        """Have every worker let a release go; what it is busy with is still answered."""
        name, _, version = text.partition(AT)
        generation = deployments.load(self.engine, name, version or None, is_loaded=False)
        deployments.await_followed(self.engine, generation)


def router(repository: Repository) -> APIRouter:
    """The routes under /v2/repository."""
    routes = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol"])
    refusals = oip_errors(400, 401, 403, 404, 408, 413, 503)

    @routes.post(
        "/index",
        response_model=list[IndexReply],
        responses=refusals,
        openapi_extra=json_body({"type": "object"}, {"ready": False}, is_required=False),
        summary="The models of the repository",
    )
    async def index(request: Request) -> Response:
        asked = validated(IndexRequest, await _document(request))
        return JSONResponse(await asyncio.to_thread(repository.index, asked.ready))

    for verb, work in (("load", repository.load), ("unload", repository.unload)):
        _add(routes, verb, work, refusals)
    return routes


def _add(
    routes: APIRouter, verb: str, work: Callable[[str], None], refusals: dict[int | str, Any]
) -> None:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    body = json_body({"type": "object"}, {}, is_required=False)

    @routes.post(
        f"/models/{{name}}/{verb}",
        name=verb,
        response_model=Nothing,
        responses=refusals,
        openapi_extra=body | {"parameters": [name]},
        summary=f"{verb.capitalize()} a model, or one version of it: name@version",
    )
    async def act(request: Request) -> Response:
        validated(LoadRequest, await _document(request))
        await asyncio.to_thread(work, request.path_params["name"])
        return JSONResponse({})


async def _document(request: Request) -> Any:
    body = await read_body(request, MOST_BODY_BYTES)
    return parse_json(body) if body.strip() else {}
