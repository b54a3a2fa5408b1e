"""Headers that say how much of a caller's limits is left.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers, and
`x-ratelimit-…` those that OpenAI's clients know.
"""

from collections.abc import Sequence

from modelyard.ledger.database import now_ms
from modelyard.ledger.entries import Standing
from modelyard.ledger.limits import WARNING_SHARE

OPENAI_MEASURES = ("requests", "tokens")


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """The headers for where the limits of a request stand after it."""
    now_s = now_ms() / 1000
    hard = [each for each in standings if each.limit.is_hard and each.limit.resets_in_s(now_s)]
    told = {
        "RateLimit-Policy": ", ".join(_policy(each, now_s) for each in hard),
        "RateLimit": ", ".join(_left(each, now_s) for each in hard),
        "Modelyard-Warning": "; ".join(_warning(each) for each in standings if _is_near(each)),
    }
    for measure in OPENAI_MEASURES:
        told |= _as_openai([each for each in hard if each.limit.measure == measure], now_s)
    return {name: value for name, value in told.items() if value}


def _policy(standing: Standing, now_s: float) -> str:
    limit = standing.limit
    window_s = limit.resets_in_s(limit.window_s(now_s))
    return f'"{limit.name}";q={limit.amount};w={window_s}'


def _left(standing: Standing, now_s: float) -> str:
    limit = standing.limit
    return f'"{limit.name}";r={max(0, standing.left)};t={limit.resets_in_s(now_s)}'


def _is_near(standing: Standing) -> bool:
    limit = standing.limit
    return not limit.is_hard and standing.left < (1 - WARNING_SHARE) * limit.amount


def _warning(standing: Standing) -> str:
    limit = standing.limit
    return f"{limit.name}: {max(0, standing.left)} of {limit.amount} left"


def _as_openai(standings: Sequence[Standing], now_s: float) -> dict[str, str]:
    """The nearest limit of a measure."""
    if not standings:
        return {}
    nearest = min(standings, key=lambda each: each.left)
    limit = nearest.limit
    return {
        f"x-ratelimit-limit-{limit.measure}": str(limit.amount),
        f"x-ratelimit-remaining-{limit.measure}": str(max(0, nearest.left)),
        f"x-ratelimit-reset-{limit.measure}": f"{limit.resets_in_s(now_s)}s",
    }
