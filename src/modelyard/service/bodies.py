"""Bodies: read within the limit while they stream in, inflated, parsed strictly; and written."""

import asyncio
import json
import math
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from modelyard.core.errors import RequestInvalid, RequestTooLarge

READ_SECONDS = 60
LOOK_SECONDS = 0.1
"""Work that takes no longer is done for a client that has gone, too."""
ENCODINGS = ("gzip", "deflate")
JSON_TYPES = ("", "application/json")

SMALL = 1 << 16
MOST_PROBLEMS = 100
"""Problems of a body that are looked at; millions would hold everybody up."""

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


class JsonReply(JSONResponse):
    """A JSON answer; the encoder is made once, as it takes longer to make than to use."""

    _encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
    ).encode

    def render(self, content: Any) -> bytes:
        """The document in UTF-8."""
        return self._encode(content).encode()


def header(request: Request, name: bytes) -> str | None:
    """A header of a request, by its name in small letters; the first of several."""
    for key, value in request.scope["headers"]:
        if key == name:
            found: str = value.decode("latin-1")
            return found
    return None


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, inflated; neither form may be over `limit_bytes`.

    Raises RequestTooLarge as soon as the limit is passed, RequestInvalid, HTTPException (408,
    415), and starlette's ClientDisconnect.
    """
    declared_encoding = header(request, b"content-encoding")
    encoding = "identity" if declared_encoding is None else declared_encoding.strip().lower()
    if encoding not in (*ENCODINGS, "identity"):
        raise HTTPException(
            415,
            f"The body's Content-Encoding is {encoding[:80]!r}; send it plain, as gzip or as "
            "deflate.",
        )
    declared = header(request, b"content-length") or ""
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit_bytes):
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await _streamed(request, limit_bytes)
    except TimeoutError:
        raise HTTPException(
            408,
            f"The request's body did not arrive within {READ_SECONDS} seconds; send it faster "
            "or in smaller requests.",
        ) from None
    return body if encoding == "identity" else inflated(body, limit_bytes)


async def _streamed(request: Request, limit_bytes: int) -> bytes:
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(parts)


def inflated(body: bytes, limit_bytes: int) -> bytes:
    """A gzip or zlib body inflated, but never beyond the limit.

    >>> inflated(zlib.compress(b"hello"), 10)
    b'hello'
    """
    inflater = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise RequestInvalid(
            "The body is not what its Content-Encoding says; compress it with gzip or zlib, or "
            "send it plain."
        ) from None
    if len(plain) > limit_bytes:
        raise _too_large(limit_bytes)
    if not inflater.eof or inflater.unused_data:
        raise RequestInvalid("The compressed body is cut short or followed by other bytes.")
    return plain


def _too_large(limit_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The request's body is larger than the {limit_bytes:,} bytes this service takes; send "
        "the rows in several requests."
    )


async def read_json(request: Request, limit_bytes: int) -> Any:
    """The request's JSON document; raises what read_body and parse_json raise."""
    body = await read_body(request, limit_bytes)
    return await off_loop(len(body), parse_json, body)


async def off_loop(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work at once, or in a thread where its size would hold the event loop up."""
    if size < SMALL:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of work, which is cancelled when the client goes away: ClientDisconnect.

    Nobody listens for that before LOOK_SECONDS, as most work is done by then. The body must have
    been read: what the client says next can only be that it has gone.
    """
    own = asyncio.current_task()
    assert own is not None
    is_over = False
    gone: asyncio.Future[Any] | None = None

    def heard(told: "asyncio.Future[Any]") -> None:
        if not is_over and not told.cancelled():
            own.cancel()

    def listen() -> None:
        nonlocal gone
        gone = asyncio.ensure_future(request.receive())
        gone.add_done_callback(heard)

    later = asyncio.get_running_loop().call_later(LOOK_SECONDS, listen)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and gone.done() and not gone.cancelled() and not own.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        is_over = True
        later.cancel()
        if gone:
            gone.cancel()


def check_json_type(request: Request) -> None:
    """Refuse a body that says it is something other than JSON: HTTPException 415."""
    declared = header(request, b"content-type") or ""
    if declared.partition(";")[0].strip().lower() not in JSON_TYPES:
        raise HTTPException(
            415,
            f"The body's Content-Type is {declared[:80]!r}; send JSON with Content-Type: "
            "application/json.",
        )


def parse_json(body: bytes) -> Any:
    """The JSON document in `body`; raises RequestInvalid in one sentence.

    Refused beside what is not JSON: NaN and Infinity, numbers beyond the range of a float, a key
    that stands twice in one object, half a surrogate pair, numbers of thousands of digits, and
    nesting beyond what can be read.

    >>> parse_json(b'{"rows": []}')
    {'rows': []}
    """
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
        )
        if "\\u" in text:  # only an escape can bring half a surrogate pair into valid UTF-8
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise RequestInvalid(
            f"The body is not UTF-8 at byte {error.start}; send JSON in UTF-8."
        ) from None
    except UnicodeEncodeError:
        raise RequestInvalid(
            "The body holds half a surrogate pair (\\ud800 to \\udfff alone), which is no "
            "character; escape both halves, or send the character itself."
        ) from None
    except json.JSONDecodeError as error:
        raise RequestInvalid(f"The body is not JSON: {_where(error)}.") from None
    except RecursionError:
        raise RequestInvalid("The body is nested too deeply to be read.") from None
    except ValueError as error:
        raise RequestInvalid(f"The body cannot be used: {_short(error)}.") from None
    return document


def _where(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "it is empty"
    message = error.msg[0].lower() + error.msg[1:]
    return f"{message} at line {error.lineno}, column {error.colno}"


def _short(error: ValueError) -> str:
    message = str(error)
    if "digits" in message:
        return "it holds a number of more than 4,300 digits"
    return message


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(number: str) -> float:
    found = float(number)
    if math.isinf(found):
        raise ValueError(f"the number {number[:40]} is too large for 64 bits")
    return found


def validated(model: type[Body], document: Any) -> Body:
    """`document` as `model`; raises RequestInvalid naming the first problem and its place."""
    try:
        return model.model_validate(document, strict=True)
    except ValidationError as error:
        raise RequestInvalid(_sentence(error, ", ".join(model.model_fields))) from None


def _sentence(error: ValidationError, keys: str) -> str:
    if (count := error.error_count()) > MOST_PROBLEMS:
        return f"The body has {count:,} problems; a body has: {keys}."
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])[:200]
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"At {place.lstrip('.') or 'the top'}: {first['msg']}{more}; a body has: {keys}."
