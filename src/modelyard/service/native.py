"""The native API: rows in, answers and usage out."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, FailFast, Field, create_model
from starlette.responses import JSONResponse, Response

from modelyard.core.project import Serve
from modelyard.service.admission import BYTES_IN_JSON, Admission
from modelyard.service.bodies import (
    JsonReply,
    check_json_type,
    off_loop,
    read_json,
    unless_gone,
    validated,
)
from modelyard.service.metering import visit_of
from modelyard.service.openapi import json_body, path_parameters, problems, row_schema
from modelyard.service.release_info import ReleaseInfo


class PredictRequest(BaseModel):
    """Rows to answer."""

    model_config = ConfigDict(extra="forbid")
    rows: Annotated[list[dict[str, Any]], FailFast()] = Field(description="one object for each row")


class UsageReply(BaseModel):
    """What a request has used."""

    rows: int
    tokens: int


class InputReply(BaseModel):
    """A column of the model."""

    name: str
    kind: str


class ModelReply(BaseModel):
    """A model of this service."""

    name: str
    version: str
    description: str
    inputs: list[InputReply]
    target: str
    labels: list[str]
    limits: dict[str, int]


class ModelsReply(BaseModel):
    """The models of this service."""

    models: list[ModelReply]


def router(release: ReleaseInfo, limits: Serve, admission: Admission) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1/models", tags=["native"])
    described = release.to_json() | {"limits": limits.model_dump()}
    named = path_parameters(release, "name")

    @routes.get("", response_model=ModelsReply, summary="The models of this service")
    async def models() -> Response:
        return JSONResponse({"models": [described]})

    @routes.get(
        "/{name}",
        response_model=ModelReply,
        responses=problems(401, 403, 404),
        openapi_extra=named,
        summary="A model: its columns, labels and limits",
    )
    async def model(request: Request) -> Response:
        release.check_path(request.path_params)
        return JSONResponse(described)

    @routes.post(
        "/{name}/predict",
        response_model=_reply_model(release),
        responses=problems(401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
        openapi_extra=named | _body(release, limits),
        summary="Answers for rows",
    )
    async def predict(request: Request) -> Response:
        release.check_path(request.path_params)
        visit = visit_of(request, release.name, release.version)
        check_json_type(request)
        document = await read_json(request, limits.max_body_bytes)
        rows = validated(PredictRequest, document).rows
        answers, usage = await unless_gone(request, admission.predict(rows, visit))
        reply = {
            "model": release.name,
            "version": release.version,
            "predictions": answers,
            "usage": {"rows": usage.rows, "tokens": usage.tokens},
        }
        return await off_loop(
            BYTES_IN_JSON * len(answers) * len(release.labels), partial(JsonReply, reply)
        )

    return routes


def _reply_model(release: ReleaseInfo) -> type[BaseModel]:
    return create_model(
        "PredictReply",
        __doc__="Answers, in the order of the rows.",
        model=(str, ...),
        version=(str, ...),
        predictions=(list[release.wire], ...),  # type: ignore[name-defined]
        usage=(UsageReply, ...),
    )


def _body(release: ReleaseInfo, limits: Serve) -> dict[str, Any]:
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": limits.max_rows,
        "items": row_schema(release, limits),
    }
    schema = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows},
        "additionalProperties": False,
    }
    return json_body(schema, {"rows": [release.example_row]})
