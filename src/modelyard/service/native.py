"""The native API: rows in, answers and usage out."""

from collections.abc import Sequence
from functools import partial, reduce
from operator import or_
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, FailFast, Field, create_model
from starlette.responses import JSONResponse, Response

from modelyard.core.project import Serve
from modelyard.service.admission import BYTES_IN_JSON
from modelyard.service.asking import asked, looked_at, seen
from modelyard.service.bodies import (
    JsonReply,
    check_json_type,
    off_loop,
    read_json,
    unless_gone,
    validated,
)
from modelyard.service.catalogue import Catalogue, Served, first_of
from modelyard.service.metrics import Metrics
from modelyard.service.openapi import (
    any_of,
    json_body,
    path_parameters,
    problems,
    row_schema,
    with_idempotency,
)
from modelyard.service.release_info import ReleaseInfo

LIMITS = ("max_rows", "max_characters", "max_body_bytes")


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
    """A model of this service; its first four fields are those that OpenAI's clients read."""

    id: str
    object: str
    created: int
    owned_by: str
    name: str
    version: str
    description: str
    inputs: list[InputReply]
    target: str
    labels: list[str]
    limits: dict[str, int]


class ModelsReply(BaseModel):
    """The models of this service, twice: as OpenAI's clients read them too."""

    object: str
    data: list[ModelReply]
    models: list[ModelReply]


def router(catalogue: Catalogue, metrics: Metrics) -> APIRouter:
    """The routes under /v1, described for the releases that the catalogue has now."""
    routes = APIRouter(prefix="/v1/models", tags=["native"])
    named = path_parameters(catalogue, "name")

    @routes.get(
        "",
        response_model=ModelsReply,
        responses=problems(401, 403),
        summary="The models of this service",
    )
    async def models(request: Request) -> Response:
        described = [_described(each) for each in seen(catalogue, request)]
        return JSONResponse({"object": "list", "data": described, "models": described})

    @routes.get(
        "/{name}",
        response_model=ModelReply,
        responses=problems(401, 403, 404),
        openapi_extra=named,
        summary="A model: its columns, labels and limits",
    )
    async def model(request: Request) -> Response:
        return JSONResponse(_described(looked_at(catalogue, request)))

    _add_predict(routes, catalogue, metrics, named)
    return routes


def _add_predict(
    routes: APIRouter, catalogue: Catalogue, metrics: Metrics, named: dict[str, Any]
) -> None:
    released = catalogue.all()

    @routes.post(
        "/{name}/predict",
        response_model=_reply_model(released),
        responses=problems(401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
        openapi_extra=with_idempotency(named) | _body(released),
        summary="Answers for rows",
    )
    async def predict(request: Request) -> Response:
        with asked(catalogue, metrics, request) as ask:
            release = ask.served.info
            check_json_type(request)
            document = await read_json(request, ask.served.limits.max_body_bytes)
            rows = validated(PredictRequest, document).rows
            answers, usage = await unless_gone(request, ask.answers(rows))
            reply = {
                "model": release.name,
                "version": release.version,
                "predictions": answers,
                "usage": {"rows": usage.rows, "tokens": usage.tokens},
            }
            return await off_loop(
                BYTES_IN_JSON * len(answers) * len(release.labels), partial(JsonReply, reply)
            )


def _described(served: Served) -> dict[str, Any]:
    info = served.info
    as_openai = {"id": info.name, "object": "model", "created": 0, "owned_by": "modelyard"}
    limits = {name: getattr(served.limits, name) for name in LIMITS}
    return as_openai | info.to_json() | {"limits": limits}


def _reply_model(released: Sequence[Served]) -> type[BaseModel]:
    wires = list(dict.fromkeys(each.info.wire for each in released))
    answer: Any = reduce(or_, (list[wire] for wire in wires)) if wires else list[Any]  # type: ignore[valid-type]
    return create_model(
        "PredictReply",
        __doc__="Answers, in the order of the rows.",
        model=(str, ...),
        version=(str, ...),
        predictions=(answer, ...),
        usage=(UsageReply, ...),
    )


def _body(released: Sequence[Served]) -> dict[str, Any]:
    first = first_of(released).values()
    schemas = [_schema(each.info, each.limits) for each in first]
    examples = [{"rows": [each.info.example_row]} for each in first]
    return json_body(any_of(schemas), examples[0] if examples else {"rows": []})


def _schema(release: ReleaseInfo, limits: Serve) -> dict[str, Any]:
    rows = {
        "type": "array",
        "minItems": 1,
        "maxItems": limits.max_rows,
        "items": row_schema(release, limits),
    }
    return {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows},
        "additionalProperties": False,
    }
