"""Errors on the wire: OIP's {"error": …} under /v2, RFC 9457 problem details elsewhere."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from modelyard.core.errors import (
    BadInput,
    KeyRefused,
    LedgerAway,
    LimitReached,
    ModelyardError,
    NameTaken,
    NotAllowed,
    RequestRepeated,
    RequestTooLarge,
    ServiceBusy,
    UnknownName,
)

PROBLEM_JSON = "application/problem+json"
MOST_CHARACTERS = 600
OPENAI = ("/v1/embeddings", "/v1/moderations")
CLIENT_GONE = 499
METHODS = "modelyard.methods"
"""What a request carries with it: the methods that its path takes."""
GONE = "modelyard.gone"
"""And what says whether its client has gone."""
STATUS: dict[type[ModelyardError], int] = {
    UnknownName: 404,
    RequestTooLarge: 413,
    ServiceBusy: 503,
    LedgerAway: 503,
    KeyRefused: 401,
    NotAllowed: 403,
    LimitReached: 429,
    RequestRepeated: 409,
    NameTaken: 409,
    BadInput: 422,
}
KNOWN: tuple[type[Exception], ...] = (*STATUS, HTTPException, ClientDisconnect)
LEDGER_SECONDS = 2
"""After so long a database that was away may be asked again."""


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="the page of the documentation on this error, or about:blank")
    title: str
    status: int
    detail: str = Field(description="what happened, what is allowed, what to do next")
    code: str = Field(description="a short name of the error, for programs")


class OipError(BaseModel):
    """An error of the Open Inference Protocol."""

    error: str


class OpenAIReason(BaseModel):
    """What OpenAI tells of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refusals:
    """Every error as an answer in the shape of its family."""

    def __init__(self, retry_after_s: Callable[[], int]):
        self._retry_after_s = retry_after_s

    def install(self, app: FastAPI) -> None:
        """Have every error of the app answered so."""
        for kind in (*KNOWN, Exception):
            app.add_exception_handler(kind, self.response)

    @staticmethod
    def is_known(error: Exception) -> bool:
        """Whether an error is a refusal, and no failure of the service."""
        return isinstance(error, KNOWN)

    async def response(self, request: Request, error: Exception) -> Response:
        """The answer that tells an error."""
        if isinstance(error, HTTPException):
            return _http(request, error)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=CLIENT_GONE)
        if isinstance(error, ModelyardError) and self.is_known(error):
            headers = self._headers(error)
            told = error.told if isinstance(error, LedgerAway) else str(error)
            return answer(request, status_of(error), told, error.code, error.page, headers)
        detail = "The service failed at this request; the reason is in its log."
        return answer(request, 500, detail, "internal-server-error")

    def _headers(self, error: ModelyardError) -> dict[str, str]:
        match error:
            case ServiceBusy():
                return {"Retry-After": str(self._retry_after_s())}
            case LedgerAway():
                return {"Retry-After": str(LEDGER_SECONDS)}
            case (
                LimitReached(retry_after_s=int(seconds))
                | RequestRepeated(retry_after_s=int(seconds))
            ):
                return {"Retry-After": str(seconds)}
            case KeyRefused():
                return {"WWW-Authenticate": "Bearer"}
        return {}


def status_of(error: Exception) -> int:
    """The status that tells an error."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, ClientDisconnect):
        return CLIENT_GONE
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def answer(
    request: Request,
    status: int,
    detail: str,
    code: str,
    page: str = "about:blank",
    headers: dict[str, str] | None = None,
) -> Response:
    """An error as a response, in the shape of the family that the request's path names."""
    if len(detail) > MOST_CHARACTERS:
        detail = f"{detail[: MOST_CHARACTERS - 1]}…"
    path = request.scope["path"]
    if is_oip(path) or is_openai(path):
        status = 400 if status == 422 else status
        told = detail if is_oip(path) else _openai(status, detail, code)
        return JSONResponse({"error": told}, status, headers)
    problem: dict[str, Any] = {
        "type": page,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return JSONResponse(problem, status, headers, PROBLEM_JSON)


def is_oip(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol.

    >>> is_oip("/v2"), is_oip("/v2/health/live"), is_oip("/v20")
    (True, True, False)
    """
    return path == "/v2" or path.startswith("/v2/")


def is_openai(path: str) -> bool:
    """Whether a path belongs to the OpenAI-compatible family.

    >>> is_openai("/v1/embeddings"), is_openai("/v1/models")
    (True, False)
    """
    return path in OPENAI


def _openai(status: int, detail: str, code: str) -> dict[str, Any]:
    """An error as OpenAI tells it."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    own = "server_error" if status >= 500 else kind.get(status, "invalid_request_error")
    return {"message": detail, "type": own, "param": None, "code": code.replace("-", "_")}


def _http(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    detail, headers = error.detail, dict(error.headers or {})
    if status == 404 and detail == status.phrase:
        detail = "There is nothing at this path; see /docs for those there are."
    if status == 405:
        headers["Allow"] = ", ".join(request.scope.get(METHODS, ()))
        detail = f"This path does not take {request.method}; it takes {headers['Allow']}."
    code = status.phrase.lower().replace(" ", "-")
    return answer(request, status, detail, code, headers=headers)
