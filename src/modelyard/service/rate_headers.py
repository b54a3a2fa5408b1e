"""Headers that say how much of a caller's limits is left.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers, and
`x-ratelimit-…` those that OpenAI's clients know.
"""

from collections.abc import Iterator, Sequence

from modelyard.ledger.database import now_ms
from modelyard.ledger.entries import Standing
from modelyard.ledger.limits import WARNING_SHARE, Limit

OPENAI_MEASURES = ("requests", "tokens")
RawHeader = tuple[bytes, bytes]


def rate_headers(standings: Sequence[Standing]) -> Iterator[RawHeader]:
    """The headers for where the limits of a request stand after it."""
    if not standings:
        return
    now_s = now_ms() / 1000
    resets = ((each, each.limit.resets_in_s(now_s)) for each in standings if each.limit.is_hard)
    hard = [(each, resets_in_s) for each, resets_in_s in resets if resets_in_s]
    if hard:
        policies = (_policy(each.limit, now_s) for each, _ in hard)
        yield b"ratelimit-policy", ", ".join(policies).encode()
        left = (f'"{each.limit.name}";r={max(0, each.left)};t={resets}' for each, resets in hard)
        yield b"ratelimit", ", ".join(left).encode()
    if near := [_warning(each) for each in standings if _is_near(each)]:
        yield b"modelyard-warning", "; ".join(near).encode()
    for measure in OPENAI_MEASURES:
        if own := [each for each in hard if each[0].limit.measure == measure]:
            yield from _as_openai(*min(own, key=lambda each: each[0].left))


def _policy(limit: Limit, now_s: float) -> str:
    window_s = limit.resets_in_s(limit.window_s(now_s))
    return f'"{limit.name}";q={limit.amount};w={window_s}'


def _is_near(standing: Standing) -> bool:
    limit = standing.limit
    return not limit.is_hard and standing.left < (1 - WARNING_SHARE) * limit.amount


def _warning(standing: Standing) -> str:
    limit = standing.limit
    return f"{limit.name}: {max(0, standing.left)} of {limit.amount} left"


def _as_openai(nearest: Standing, resets_in_s: int) -> Iterator[RawHeader]:
    """The nearest limit of a measure."""
    limit = nearest.limit
    yield f"x-ratelimit-limit-{limit.measure}".encode(), str(limit.amount).encode()
    left = str(max(0, nearest.left)).encode()
    yield f"x-ratelimit-remaining-{limit.measure}".encode(), left
    yield f"x-ratelimit-reset-{limit.measure}".encode(), f"{resets_in_s}s".encode()
