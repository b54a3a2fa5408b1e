"""What the routes declare: every status and content type that can come back."""

from typing import Any

from pydantic import BaseModel

from modelyard.core.project import Serve
from modelyard.service.problems import PROBLEM_JSON, OipError, Problem
from modelyard.service.release_info import Column, ReleaseInfo

Responses = dict[int | str, dict[str, Any]]
SAID = {
    400: "The request cannot be answered; `error` says why.",
    401: "The request has no key, or one that does not hold.",
    403: "The key may not do this.",
    404: "There is no such model or version.",
    408: "The body did not arrive in time.",
    409: "The idempotency key stands for another request, or for one that is being answered; "
    "where Retry-After says when, come again.",
    413: "The body, the rows or a text are over a limit.",
    415: "The body's type or compression is not read here.",
    422: "The request cannot be answered; `detail` says why.",
    429: "A limit is reached; come again after Retry-After seconds, where it says so.",
    503: "The service is busy; come again after Retry-After seconds.",
}
RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]{1,5}$"},
    }
}


def problems(*statuses: int) -> Responses:
    """These statuses, answered as problem details."""
    return {status: _refusal(status, Problem, PROBLEM_JSON) for status in statuses}


def oip_errors(*statuses: int) -> Responses:
    """These statuses, answered in OIP's shape."""
    return {status: _refusal(status, OipError, "application/json") for status in statuses}


def _refusal(status: int, model: type[BaseModel], media_type: str) -> dict[str, Any]:
    refusal: dict[str, Any] = {
        "description": SAID[status],
        "content": {media_type: {"schema": model.model_json_schema()}},
    }
    return refusal | ({"headers": RETRY_AFTER} if status == 503 else {})


def path_parameters(release: ReleaseInfo, *names: str) -> dict[str, Any]:
    """The path parameters `name` and `version`, each with the one value there is."""
    values = {"name": release.name, "version": release.version}
    return {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "enum": [values[name]]},
            }
            for name in names
        ]
    }


def json_body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """A JSON body that a route needs."""
    media = {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": media}}}


def row_schema(release: ReleaseInfo, limits: Serve) -> dict[str, Any]:
    """A row as JSON Schema; other columns may stand beside those of the model."""
    properties = {column.name: _value_schema(column, limits) for column in release.columns}
    required = [column.name for column in release.columns if not column.optional]
    return {"type": "object", "required": required, "properties": properties}


def _value_schema(column: Column, limits: Serve) -> dict[str, Any]:
    """A column's value; null and blank text are allowed where it may lack."""
    schema = dict(column.schema)
    if "string" in schema.get("type", ()):
        schema["maxLength"] = limits.max_characters
    if not column.may_lack:
        return schema
    blank = {"type": "string", "pattern": r"^\s*$", "maxLength": limits.max_characters}
    return {"anyOf": [schema, {"type": "null"}, blank]}
