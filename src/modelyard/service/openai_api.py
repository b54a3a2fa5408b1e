"""The OpenAI-compatible routes: embeddings of releases of kind match, moderations by labels.

https://platform.openai.com/docs/api-reference/embeddings and /moderations: their requests and
replies, error object and rate headers, so that OpenAI's own clients work as they are.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from modelyard.core.errors import RequestInvalid
from modelyard.inputs.text import NOT_BLANK
from modelyard.ledger.limits import Usage
from modelyard.service.asking import Asked, asked
from modelyard.service.bodies import (
    JsonReply,
    check_json_type,
    off_loop,
    read_json,
    unless_gone,
    validated,
)
from modelyard.service.catalogue import Catalogue, Served
from modelyard.service.metrics import Metrics
from modelyard.service.openapi import json_body, openai_errors, with_idempotency

BYTES_OF_NUMBER = 12
REFUSALS = (400, 401, 403, 404, 408, 409, 413, 415, 429, 503)
TEXT = {"type": "string", "minLength": 1, "pattern": NOT_BLANK}
TEXTS = {"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": TEXT}]}
Texts = Annotated[Any, Field(description="a text, or several", json_schema_extra=dict(TEXTS))]


class EmbeddingsRequest(BaseModel):
    """Texts to be told as vectors."""

    model_config = ConfigDict(extra="ignore")
    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class ModerationsRequest(BaseModel):
    """Texts to be looked through."""

    model_config = ConfigDict(extra="ignore")
    model: str
    input: Texts


class TokensReply(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(BaseModel):
    """A text's vector, as numbers or as base64 of float32, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsReply(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingReply]
    model: str
    usage: TokensReply


class FindingReply(BaseModel):
    """What a text is found to be."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class ModerationsReply(BaseModel):
    """What the texts are found to be, in their order."""

    id: str
    model: str
    results: list[FindingReply]


def router(catalogue: Catalogue, metrics: Metrics) -> APIRouter:
    """The routes that OpenAI's clients ask, beside /v1/models."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])
    released = catalogue.all()

    async def embeddings(request: Request) -> Response:
        asks = validated(EmbeddingsRequest, await _document(catalogue, request))
        with asked(catalogue, metrics, request, asks.model) as ask:
            rows = _rows(ask, asks.input)
            vectors, usage = await unless_gone(request, ask.vectors(rows))
            _check_dimensions(asks.dimensions, vectors.shape[1])
            return await off_loop(
                BYTES_OF_NUMBER * vectors.size, _embedded, asks, ask.served, vectors, usage
            )

    async def moderations(request: Request) -> Response:
        asks = validated(ModerationsRequest, await _document(catalogue, request))
        with asked(catalogue, metrics, request, asks.model) as ask:
            _check_labels(ask.served)
            answers, _ = await unless_gone(request, ask.answers(_rows(ask, asks.input)))
            unflagged = ask.served.limits.unflagged
            results = [_finding(each, ask.served.info.labels, unflagged) for each in answers]
            made = ask.visit.id.removeprefix("req_") if ask.visit else "0"
            reply = {"id": f"modr-{made}", "model": _name(ask.served), "results": results}
            return JsonReply(reply)

    for path, answer, reply, model in (
        ("/embeddings", embeddings, EmbeddingsReply, EmbeddingsRequest),
        ("/moderations", moderations, ModerationsReply, ModerationsRequest),
    ):
        example = {"model": _example(released, path), "input": ["a text"]}
        body = json_body(model.model_json_schema(), example)
        routes.add_api_route(
            path,
            answer,
            methods=["POST"],
            response_model=reply,
            responses=openai_errors(*REFUSALS),
            openapi_extra=body | with_idempotency({"parameters": []}),
            summary=(model.__doc__ or "").rstrip("."),
        )
    return routes


async def _document(catalogue: Catalogue, request: Request) -> Any:
    check_json_type(request)
    most = max((each.limits.max_body_bytes for each in catalogue.all()), default=1)
    return await read_json(request, most)


def _example(released: Sequence[Served], path: str) -> str:
    wanted = [each for each in released if bool(each.info.labels) == (path == "/moderations")]
    return wanted[0].info.name if wanted else "a-model"


def _rows(ask: Asked, given: Any) -> list[Mapping[str, Any]]:
    columns = [column for column in ask.served.info.columns if not column.optional]
    if len(columns) != 1 or columns[0].kind != "text":
        raise RequestInvalid(
            f"The release {ask.served.info.name} takes "
            f"{', '.join(column.name for column in columns)}, and texts alone are taken here; ask "
            f"it at /v1/models/{ask.served.info.name}/predict."
        )
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestInvalid("`input` is a text, or a list of texts; tokens are not taken.")
    return [{columns[0].name: text} for text in texts]


def _check_dimensions(wanted: int | None, has: int) -> None:
    if wanted not in (None, has):
        raise RequestInvalid(f"The vectors have {has} dimensions; leave `dimensions` out.")


def _check_labels(served: Served) -> None:
    if not served.info.labels:
        raise RequestInvalid(
            f"The release {served.info.name} answers with {served.info.target} and finds no "
            "labels; releases of kind class and labels do."
        )


def _name(served: Served) -> str:
    return f"{served.info.name}@{served.info.version}"


def _embedded(
    asks: EmbeddingsRequest, served: Served, vectors: NDArray[np.float32], usage: Usage
) -> Response:
    def told(vector: NDArray[np.float32]) -> list[float] | str:
        if asks.encoding_format == "float":
            return [float(number) for number in vector]
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()

    data = [
        {"object": "embedding", "index": place, "embedding": told(vector)}
        for place, vector in enumerate(vectors)
    ]
    tokens = {"prompt_tokens": usage.tokens, "total_tokens": usage.tokens}
    return JsonReply({"object": "list", "data": data, "model": _name(served), "usage": tokens})


def _finding(
    answer: Mapping[str, Any], labels: Sequence[str], unflagged: Sequence[str]
) -> dict[str, Any]:
    """An answer of kind class or labels, by label."""
    said = answer.get("labels", [answer.get("label")])
    found = {label: label in said for label in labels}
    scores = {label: float(answer["scores"].get(label, 0.0)) for label in labels}
    return {
        "flagged": any(label not in unflagged for label in said),
        "categories": found,
        "category_scores": scores,
        "category_applied_input_types": {label: ["text"] for label in labels},
    }
