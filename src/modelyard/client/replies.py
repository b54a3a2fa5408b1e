"""What the service replies, as types; a field that is not named here is not read."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from modelyard.client.messages import Response

Answer = dict[str, Any]
"""What the model says of a row; its fields depend on the kind of target."""
Reply = TypeVar("Reply")
LIMIT = re.compile(r'"([^"]*)"((?:\s*;\s*[a-z]+=\d{1,18})*)')
NUMBER = re.compile(r"([a-z]+)=(\d+)")


@dataclass(frozen=True)
class Input:
    """A column of a model."""

    name: str
    kind: str


@dataclass(frozen=True)
class Model:
    """A model of the service: its columns, its labels, and the limits of a request."""

    name: str
    version: str
    description: str
    inputs: tuple[Input, ...]
    target: str
    labels: tuple[str, ...]
    limits: dict[str, int]


@dataclass(frozen=True)
class ModelsReply:
    """The body of the list of models."""

    models: tuple[Model, ...]


@dataclass(frozen=True)
class Usage:
    """What a request has used."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class PredictReply:
    """The body of answers; `predictions` has one for each row, in their order."""

    model: str
    version: str
    predictions: tuple[Answer, ...]
    usage: Usage


@dataclass(frozen=True)
class RateLimit:
    """How much is left of a limit, and when it is whole again."""

    name: str
    left: int
    resets_in_s: int | None = None
    amount: int | None = None


@dataclass(frozen=True)
class Prediction(PredictReply):
    """Answers, what they used, and what is left.

    `request_id` names the request in the service's journal. `replayed` says that an earlier
    attempt had been answered and counted, and this is its answer. `warning` tells of limits that
    only warn.
    """

    request_id: str | None
    replayed: bool
    rate_limits: tuple[RateLimit, ...]
    warning: str | None


@dataclass(frozen=True)
class Problem:
    """The body of a refusal (RFC 9457); a proxy's may lack any part."""

    type: str = "about:blank"
    detail: str = ""
    code: str = ""


def read(reply: TypeAdapter[Reply], response: Response) -> Reply | None:
    """The body of a response as this type; None where it is something else."""
    try:
        return reply.validate_json(response.body)
    except ValidationError:
        return None


def prediction(reply: PredictReply, response: Response) -> Prediction:
    """A prediction: the body, and what the headers say."""
    headers = response.headers
    return Prediction(
        **vars(reply),
        request_id=headers.get("x-request-id"),
        replayed=headers.get("idempotency-replayed") == "true",
        rate_limits=tuple(rate_limits(headers)),
        warning=headers.get("modelyard-warning"),
    )


def rate_limits(headers: Mapping[str, str]) -> Iterator[RateLimit]:
    """What is left of each limit (draft-ietf-httpapi-ratelimit-headers).

    >>> list(rate_limits({"ratelimit": '"day";r=3;t=60', "ratelimit-policy": '"day";q=9;w=86400'}))
    [RateLimit(name='day', left=3, resets_in_s=60, amount=9)]
    """
    policies = dict(_listed(headers.get("ratelimit-policy", "")))
    for name, numbers in _listed(headers.get("ratelimit", "")):
        if "r" in numbers:
            amount = policies.get(name, {}).get("q")
            yield RateLimit(name, numbers["r"], numbers.get("t"), amount)


def _listed(header: str) -> Iterator[tuple[str, dict[str, int]]]:
    for name, numbers in LIMIT.findall(header):
        yield name, {letter: int(number) for letter, number in NUMBER.findall(numbers)}
