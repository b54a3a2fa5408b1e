"""What a response without an answer is told as, and whether to ask again."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import responses

from pydantic import TypeAdapter

from modelyard.client.errors import (
    ApiError,
    Busy,
    KeyRefused,
    LimitReached,
    NoAnswer,
    NotAllowed,
    RequestInvalid,
)
from modelyard.client.messages import Request, Response
from modelyard.client.replies import Problem, read

PROBLEM = TypeAdapter(Problem)
KINDS: dict[int, type[ApiError]] = {
    401: KeyRefused,
    403: NotAllowed,
    429: LimitReached,
    502: Busy,
    503: Busy,
    504: Busy,
}
PASSING = (500, 502, 503, 504)
PASSING_IF_TOLD = (409, 429)
"""What passes where Retry-After says when, and does not where it is missing."""


def refusal(request: Request, response: Response) -> ApiError:
    """The error that a response tells."""
    status, headers = response.status, response.headers
    problem = read(PROBLEM, response) or Problem()
    retry_after_s = seconds(headers.get("retry-after", ""), datetime.now(UTC))
    return _kind(status, retry_after_s)(
        problem.detail or _unsaid(request, response),
        status,
        problem.code or _phrase(status).lower().replace(" ", "-"),
        problem.type,
        headers.get("x-request-id"),
        retry_after_s,
    )


def unreadable(request: Request, response: Response) -> ApiError:
    """The error of an answer that is not what the service sends."""
    return ApiError(
        f"{request} was answered with something other than the service's JSON "
        f"({_type(response)}); see that the URL is the service's, and what stands between.",
        response.status,
        "answer-unreadable",
        request_id=response.headers.get("x-request-id"),
    )


def no_answer(request: Request, error: Exception) -> NoAnswer:
    """The error of a request to which no whole response came."""
    why = ": ".join(part for part in (type(error).__name__, str(error)) if part)
    return NoAnswer(
        f"{request} had no answer ({why}); see that the service runs there and can be reached.",
        code="no-answer",
    )


def may_pass(error: ApiError) -> bool:
    """Whether the same request may be answered later."""
    if error.status in PASSING_IF_TOLD:
        return error.retry_after_s is not None
    return error.status in PASSING or isinstance(error, NoAnswer)


def seconds(retry_after: str, now: datetime) -> float | None:
    """How long a Retry-After says to wait, in seconds or until a date; None where it says nothing.

    >>> seconds("120", datetime(2026, 1, 1, tzinfo=UTC))
    120.0
    >>> seconds("Thu, 01 Jan 2026 00:00:09 GMT", datetime(2026, 1, 1, tzinfo=UTC))
    9.0
    """
    if found := re.fullmatch(r"\s*([0-9]{1,12})\s*", retry_after):
        return float(found[1])
    try:
        when = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _kind(status: int, retry_after_s: float | None) -> type[ApiError]:
    if status == 409 and retry_after_s is not None:
        return Busy
    return KINDS.get(status, RequestInvalid if 400 <= status < 500 else ApiError)


def _unsaid(request: Request, response: Response) -> str:
    return (
        f"{request} was answered with {response.status} {_phrase(response.status)} and no reason "
        f"({_type(response)}); see that the URL is the service's, and what stands between."
    )


def _type(response: Response) -> str:
    return response.headers.get("content-type", "")[:80] or "no Content-Type"


def _phrase(status: int) -> str:
    return responses.get(status) or "Unknown Status"
