"""Operations on customers: how each is declared, and how a request becomes a call of it.

An operation is a plain function, which may ask the database as it likes: it is called in a thread,
with a body that has been read within limits and checked, and ids that have the form of ids.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import Engine
from starlette.responses import Response

from modelyard.core.errors import RequestInvalid, UnknownName
from modelyard.ledger import customers
from modelyard.ledger.customers import Scope
from modelyard.ledger.directory import Caller
from modelyard.ledger.keys import IDS
from modelyard.service.bodies import JsonReply, check_json_type, parse_json, read_body, validated
from modelyard.service.metering import CALLER
from modelyard.service.openapi import json_body, problems

MOST_BODY_BYTES = 1 << 16
NAMED = re.compile(r"{(\w+)}")
FORMS = IDS | {"limit": "^[1-9][0-9]{0,8}$"}
STATUS = {"POST": 201, "DELETE": 204}
PRIVATE = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Asked:
    """What is asked of an operation: by whom, with which ids, query and body."""

    engine: Engine
    caller: Caller
    ids: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None

    def scope(self) -> Scope:
        """The path's organisation, as far as the caller sees it; raises UnknownName."""
        own = self.caller.scope
        found = customers.find(self.engine, "organisation", self.ids["organisation"], own)
        return Scope(found["id"], own.project_id)


@dataclass(frozen=True)
class Operation:
    """A method of a path, the work it asks for, and what goes in and out."""

    method: str
    path: str
    work: Callable[[Asked], Any]
    reply: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: Sequence[Mapping[str, Any]] = ()

    @property
    def status(self) -> int:
        """The status of its answer."""
        return STATUS.get(self.method, 200)

    def described(self) -> dict[str, Any]:
        """Its parameters and its body, for the OpenAPI document."""
        ids = [_parameter(name) for name in NAMED.findall(self.path)]
        told: dict[str, Any] = {"parameters": [*ids, *self.query]}
        if self.body is None:
            return told
        schema = self.body.model_json_schema()
        example = schema.pop("examples")[0]
        return told | json_body(schema, example, _is_needed(self.body))

    def endpoint(self, engine: Engine) -> Callable[[Request], Awaitable[Response]]:
        """What answers its requests."""

        async def answer(request: Request) -> Response:
            body = await _body(request, self.body) if self.body else None
            query = _query(request, [each["name"] for each in self.query])
            caller: Caller = request.scope[CALLER]
            asked = Asked(engine, caller, _ids(request), query, body)
            found = await asyncio.to_thread(self.work, asked)
            if self.reply is None:
                return Response(status_code=self.status)
            return JsonReply(found, self.status, PRIVATE)

        return answer


def add(routes: APIRouter, engine: Engine, operations: Sequence[Operation]) -> None:
    """Add operations to the routes."""
    for each in operations:
        with_body = (408, 409, 413, 415) if each.body else ()
        routes.add_api_route(
            each.path,
            each.endpoint(engine),
            methods=[each.method],
            name=each.work.__name__,
            status_code=each.status,
            response_model=each.reply,
            responses=problems(401, 403, 404, *with_body, 422, 503),
            openapi_extra=each.described(),
            summary=(each.work.__doc__ or "").partition(";")[0].rstrip("."),
        )


def _parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "pattern": FORMS[name]}
    if name == "limit":
        schema = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _is_needed(body: type[BaseModel]) -> bool:
    return any(field.is_required() for field in body.model_fields.values())


def _ids(request: Request) -> dict[str, str]:
    """The ids of the path; what has not the form of an id is as unknown as an id of nobody."""
    found = {name: str(text) for name, text in request.path_params.items()}
    for name, text in found.items():
        if not re.fullmatch(FORMS[name], text):
            raise UnknownName(f"There is no one {name} {text[:80]!r} here; see those listed.")
    return found


def _query(request: Request, known: Sequence[str]) -> dict[str, str]:
    items = request.query_params.multi_items()
    names = [name for name, _ in items]
    if strange := [name for n, name in enumerate(names) if name not in known or name in names[:n]]:
        raise RequestInvalid(
            f"The query has {strange[0][:80]!r} once too often; it may have "
            f"{', '.join(known) or 'nothing'}, each once."
        )
    return dict(items)


async def _body(request: Request, model: type[BaseModel]) -> BaseModel:
    body = await read_body(request, MOST_BODY_BYTES)
    if not body and not _is_needed(model):
        return model()
    check_json_type(request)
    return validated(model, parse_json(body))
