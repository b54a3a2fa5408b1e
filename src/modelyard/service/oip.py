"""The Open Inference Protocol v2 (KServe, Triton), with the binary tensor data extension."""

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from modelyard.core.errors import RequestInvalid
from modelyard.core.project import Serve
from modelyard.service.admission import BYTES_IN_JSON
from modelyard.service.asking import Asked, asked, looked_at
from modelyard.service.bodies import off_loop, parse_json, read_body, unless_gone, validated
from modelyard.service.catalogue import Catalogue, Served, first_of
from modelyard.service.metrics import Metrics
from modelyard.service.openapi import (
    any_of,
    json_body,
    oip_errors,
    path_parameters,
    with_idempotency,
)
from modelyard.service.release_info import ReleaseInfo
from modelyard.service.tensors import (
    ELEMENTS,
    InferRequest,
    refuse_unsupported,
    rows_of,
    wanted,
    written,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
DIGITS = re.compile("[0-9]{1,15}")
RESERVED = ("binary_data_output", "priority", "timeout", "sequence_id")


class Live(BaseModel):
    """Whether the server lives."""

    live: bool


class Ready(BaseModel):
    """Whether the server takes requests."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model takes requests."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """The server and what it can do beyond the protocol."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor of a model; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class ModelMetadata(BaseModel):
    """A model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """A tensor of an answer; without `data` its values are in the binary part."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[Any] = []


class InferReply(BaseModel):
    """The JSON of an inference answer."""

    model_name: str
    model_version: str
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[OutputTensor]


def health(version: str) -> APIRouter:
    """The routes about the server: metadata, live and ready."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @routes.get("", response_model=ServerMetadata, summary="The server")
    async def server() -> Response:
        extensions = ["binary_tensor_data"]
        return JSONResponse({"name": "modelyard", "version": version, "extensions": extensions})

    @routes.get("/health/live", response_model=Live, summary="Whether the server lives")
    async def live() -> Response:
        return JSONResponse({"live": True})

    @routes.get("/health/ready", response_model=Ready, summary="Whether the server is ready")
    async def ready() -> Response:
        return JSONResponse({"ready": True})

    return routes


def models(catalogue: Catalogue, metrics: Metrics) -> APIRouter:
    """The routes about models, with and without a version in the path."""
    routes = APIRouter(prefix="/v2/models", tags=["Open Inference Protocol"])

    async def metadata(request: Request) -> Response:
        served = looked_at(catalogue, request)
        return JSONResponse(_metadata(served, catalogue))

    async def ready(request: Request) -> Response:
        served = looked_at(catalogue, request)
        return JSONResponse({"name": served.info.name, "ready": True})

    async def infer(request: Request) -> Response:
        with asked(catalogue, metrics, request) as ask:
            return await _inferred(ask, request)

    for path, names in (
        ("/{name}", ("name",)),
        ("/{name}/versions/{version}", ("name", "version")),
    ):
        parameters = path_parameters(catalogue, *names)
        add = partial(
            routes.add_api_route, responses=oip_errors(401, 403, 404), openapi_extra=parameters
        )
        add(path, metadata, response_model=ModelMetadata, summary="The model and its tensors")
        add(f"{path}/ready", ready, response_model=ModelReady, summary="Whether it is ready")
        routes.add_api_route(
            f"{path}/infer",
            infer,
            methods=["POST"],
            response_model=InferReply,
            responses=_infer_replies(),
            openapi_extra=_infer_extra(catalogue.all(), parameters),
            summary="Answers for tensors",
        )
    return routes


async def _inferred(ask: Asked, request: Request) -> Response:
    release = ask.served.info
    body = await read_body(request, ask.served.limits.max_body_bytes)
    asked_for, binary = await off_loop(len(body), _parsed, request, body)
    outputs = wanted(asked_for, ask.served.outputs)
    rows = rows_of(asked_for.inputs, release.columns, binary)
    answers, _ = await unless_gone(request, ask.answers(rows))
    tensors, parts = written(answers, outputs)
    size = BYTES_IN_JSON * len(rows) * len(release.labels)
    return await off_loop(size, _reply, release, asked_for, tensors, parts)


def _metadata(served: Served, catalogue: Catalogue) -> dict[str, Any]:
    release, outputs = served.info, served.outputs
    versions = [each.info.version for each in catalogue.all() if each.info.name == release.name]
    return {
        "name": release.name,
        "versions": sorted(versions),
        "platform": "onnx_onnxruntime",
        "inputs": [
            {"name": column.name, "datatype": column.datatype, "shape": [-1]}
            | ({"parameters": {"optional": True}} if column.optional else {})
            for column in release.columns
        ],
        "outputs": [output.to_json() for output in outputs.values()],
    }


def _parsed(request: Request, body: bytes) -> tuple[InferRequest, bytes]:
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        end = len(body)
    elif DIGITS.fullmatch(length) and int(length) <= len(body):
        end = int(length)
    else:
        raise RequestInvalid(
            f"{HEADER_LENGTH} is {length[:40]!r} and the body has {len(body):,} bytes; it gives "
            "the length of the JSON that the body starts with."
        )
    asked = validated(InferRequest, parse_json(body[:end]))
    refuse_unsupported(asked.parameters)
    return asked, body[end:]


def _reply(
    release: ReleaseInfo, asked: InferRequest, tensors: list[dict[str, Any]], binary: bytes
) -> Response:
    reply: dict[str, Any] = {"model_name": release.name, "model_version": release.version}
    if asked.id is not None:
        reply["id"] = asked.id
    if echoed := {k: v for k, v in asked.parameters.items() if k not in RESERVED}:
        reply["parameters"] = echoed
    reply["outputs"] = tensors
    if not any("data" not in tensor for tensor in tensors):
        return JSONResponse(reply)
    head = json.dumps(reply, ensure_ascii=False, allow_nan=False).encode()
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(head + binary, headers=headers, media_type="application/octet-stream")


def _infer_replies() -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    description = "JSON; or, where binary data was asked for, JSON and the binary data behind it."
    answered = {"description": description, "content": {"application/octet-stream": binary}}
    return {200: answered} | oip_errors(400, 401, 403, 404, 408, 409, 413, 415, 429, 503)


def _infer_extra(released: Sequence[Served], parameters: dict[str, Any]) -> dict[str, Any]:
    first = list(first_of(released).values())
    inputs = [
        {"name": column.name, "datatype": column.datatype, "shape": [1], "data": [column.example]}
        for each in first[:1]
        for column in each.info.columns
    ]
    schemas = [_infer_schema(each.info, each.limits) for each in first]
    extra = json_body(any_of(schemas), {"inputs": inputs})
    content = extra["requestBody"]["content"]
    content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    header = {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "the length of the JSON, where binary data follows it",
        "schema": {"type": "integer", "minimum": 0},
    }
    own = with_idempotency(parameters)["parameters"]
    return extra | {"parameters": [*own, header]}


def _infer_schema(release: ReleaseInfo, limits: Serve) -> dict[str, Any]:
    """The request as JSON Schema, each number of rows and elements within the limits."""
    parameters = {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    }
    shape = {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1, "maximum": limits.max_rows}],
        "items": {"enum": [1]},
        "minItems": 1,
        "maxItems": 2,
    }
    tensors = [
        {
            "type": "object",
            "required": ["name", "datatype", "shape"],
            "properties": {
                "name": {"enum": [column.name]},
                "datatype": {"enum": [column.datatype]},
                "shape": shape,
                "parameters": parameters,
                "data": {"type": "array", "minItems": 1, "items": ELEMENTS[column.datatype]},
            },
        }
        for column in release.columns
    ]
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "parameters": parameters},
    }
    size, needed = len(tensors), sum(not column.optional for column in release.columns)
    tensor = tensors[0] if size == 1 else {"anyOf": tensors}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": parameters,
            "inputs": {"type": "array", "minItems": needed, "maxItems": size, "items": tensor},
            "outputs": {"type": "array", "items": output},
        },
    }
