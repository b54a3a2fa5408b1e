"""The calls of the API: each method of a client once, for both kinds."""

import base64
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from modelyard.client.errors import RequestInvalid
from modelyard.client.exchange import Call, Patience, exchanged
from modelyard.client.messages import Request, Response
from modelyard.client.refusals import unreadable
from modelyard.client.replies import (
    Model,
    ModelsReply,
    Prediction,
    PredictReply,
    prediction,
    read,
)
from modelyard.core.errors import SettingInvalid

Row = Mapping[str, Any]
Reply = TypeVar("Reply")
VISIBLE = re.compile(r"[\x21-\x7e]+")
MOST_CHARACTERS = 255


@dataclass(frozen=True)
class Operation(Generic[Reply]):
    """A method and path of the API, and what it replies."""

    method: str
    path: str
    reply: TypeAdapter[Reply]


MODELS = Operation("GET", "/v1/models", TypeAdapter(ModelsReply))
MODEL = Operation("GET", "/v1/models/{name}", TypeAdapter(Model))
PREDICT = Operation("POST", "/v1/models/{name}/predict", TypeAdapter(PredictReply))


class Calls:
    """What is sent for each method, and what is made of the response."""

    def __init__(self, url: str, key: str | None, patience: Patience):
        if key is not None and not VISIBLE.fullmatch(key):
            raise SettingInvalid(
                "The key holds something other than printable ASCII, or is empty; give it as it "
                "was shown when it was made."
            )
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._patience = patience

    def models(self) -> Call[list[Model]]:
        """All models."""
        reply, _ = yield from self._asked(MODELS)
        return list(reply.models)

    def model(self, name: str) -> Call[Model]:
        """One model."""
        reply, _ = yield from self._asked(MODEL, name)
        return reply

    def predict(
        self, name: str, rows: Iterable[Row], idempotency_key: str | None
    ) -> Call[Prediction]:
        """Answers for rows; each attempt has the same bytes and the same key."""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": _checked_key(idempotency_key),
        }
        reply, response = yield from self._asked(PREDICT, name, headers, body_of(rows))
        return prediction(reply, response)

    def _asked(
        self,
        operation: Operation[Reply],
        name: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Call[tuple[Reply, Response]]:
        """What an operation replies."""
        path = operation.path.format(name=quote(name, safe="", errors="replace"))
        sent = self._headers | dict(headers or {})
        request = Request(operation.method, self._url + path, sent, body)
        response = yield from exchanged(request, self._patience)
        reply = read(operation.reply, response)
        if reply is None:
            raise unreadable(request, response)
        return reply, response


def body_of(rows: Iterable[Row]) -> bytes:
    """Rows as the body of a request; raises RequestInvalid for values that JSON has not."""
    try:
        text = json.dumps(
            {"rows": list(rows)},
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
            default=_plain,
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestInvalid(
            f"The rows cannot be sent as JSON ({str(error)[:200]}); a value is a text, a number, "
            "True, False, None, the bytes of an image, or a list or dictionary of such.",
            code="request-invalid",
            page="docs/errors/request-invalid.md",
        ) from None


def _plain(value: Any) -> Any:
    """A value in terms of JSON; the API takes images as base64."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(f"got {type(value).__name__}")


def _checked_key(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    if len(given) > MOST_CHARACTERS or not VISIBLE.fullmatch(given):
        raise SettingInvalid(
            f"An idempotency key has 1 to {MOST_CHARACTERS} printable characters of ASCII without "
            f"spaces; got {given[:80]!r}."
        )
    return given


def batches(rows: Iterable[Row], batch_rows: int) -> Iterator[list[Row]]:
    """Rows in lists of `batch_rows`, the last one shorter.

    >>> [len(batch) for batch in batches([{}] * 5, 2)]
    [2, 2, 1]
    """
    rest = iter(rows)
    while batch := list(islice(rest, batch_rows)):
        yield batch


def check_at_least_one(**numbers: int) -> None:
    """Refuse a number below 1: SettingInvalid."""
    for name, number in numbers.items():
        if number < 1:
            raise SettingInvalid(f"{name} is a whole number from 1; got {number}.")
