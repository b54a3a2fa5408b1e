"""What the routes declare: every status and content type that can come back."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from modelyard.core.project import Serve
from modelyard.service.access import right_for
from modelyard.service.catalogue import Catalogue, first_of
from modelyard.service.problems import PROBLEM_JSON, OipError, OpenAIReason, Problem, is_oip
from modelyard.service.release_info import Column, ReleaseInfo

Responses = dict[int | str, dict[str, Any]]
SAID = {
    400: "The request cannot be answered; `error` says why.",
    401: "The request has no key, or one that does not hold.",
    403: "The key may not do this.",
    404: "There is no such model, version or id here.",
    408: "The body did not arrive in time.",
    409: "The name is taken, or the idempotency key stands for another request or for one that is "
    "being answered.",
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


def openai_errors(*statuses: int) -> Responses:
    """These statuses, answered in OpenAI's shape."""
    whole = {"type": "object", "required": ["error"], "properties": {}}
    whole["properties"] = {"error": OpenAIReason.model_json_schema()}
    return {
        status: _refusal(status, OpenAIReason, "application/json")
        | {"content": {"application/json": {"schema": whole}}}
        for status in statuses
    }


def _refusal(status: int, model: type[BaseModel], media_type: str) -> dict[str, Any]:
    refusal: dict[str, Any] = {
        "description": SAID[status],
        "content": {media_type: {"schema": model.model_json_schema()}},
    }
    return refusal | ({"headers": RETRY_AFTER} if status == 503 else {})


def path_parameters(catalogue: Catalogue, *names: str) -> dict[str, Any]:
    """The path parameters `name` and `version`, each with the values there are."""
    released = catalogue.all()
    values = {
        "name": [n for name in first_of(released) for n in catalogue.names_of(name)],
        "version": sorted({each.info.version for each in released}),
    }
    if "version" in names:
        values["name"] = list(first_of(released))
    return {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "enum": values[name]},
            }
            for name in names
        ]
    }


def with_idempotency(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters, and the header by which a request that is sent again is known."""
    header = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "a name for this request: sent again with it, it is answered as before, "
        "and counted once",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }
    return {"parameters": [*parameters["parameters"], header]}


def any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One of several schemas; those that are equal are told once."""
    own = [each for n, each in enumerate(schemas) if each not in schemas[:n]]
    return own[0] if len(own) == 1 else {"anyOf": own}


def json_body(schema: dict[str, Any], example: Any, is_required: bool = True) -> dict[str, Any]:
    """A JSON body that a route needs, or takes."""
    media = {"schema": schema, "example": example}
    return {"requestBody": {"required": is_required, "content": {"application/json": media}}}


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


def add_keys(document: dict[str, Any]) -> None:
    """Say in a document which operations need a key, and how they refuse those without."""
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer", "description": "a key of the service"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            right = right_for(method.upper(), path)
            if right:
                operation["security"] = [{"key": []}]
                operation["x-right"] = right
                refusals = (oip_errors if is_oip(path) else problems)(401, 403, 503)
                for status, refusal in refusals.items():
                    operation["responses"].setdefault(str(status), refusal)
