"""Limits: how much of a measure a key, a project or an organisation may use in a period."""

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

Measure = Literal["requests", "rows", "tokens", "images", "compute_us", "spend_micros", "at_once"]
SetBy = Literal["admin", "customer"]
Period = Literal["second", "minute", "hour", "day", "month", "ever"]
MEASURES: tuple[Measure, ...] = (
    "requests", "rows", "tokens", "images", "compute_us", "spend_micros", "at_once",
)  # fmt: skip
PRICED: tuple[Measure, ...] = MEASURES[:5]
LARGEST_PRICE = 10**12
"""In millionths of the currency; and for how much of a measure, at most."""
SECONDS: dict[Period, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
PERIODS: tuple[Period, ...] = (*SECONDS, "month", "ever")
SUBJECTS = ("organisation", "project", "key")
WARNING_SHARE = 0.8


class Usage(NamedTuple):
    """What a request uses; of what is only known at the end, 0 before."""

    requests: int = 1
    rows: int = 0
    tokens: int = 0
    images: int = 0
    compute_us: int = 0
    spend_micros: int = 0

    def of(self, measure: Measure) -> int:
        """How much of a measure; of those at once, one."""
        return 1 if measure == "at_once" else int(getattr(self, measure))


USED = Usage._fields
NOTHING = Usage(requests=0)


@dataclass(frozen=True)
class Limit:
    """At most `amount` of a measure in a period; a soft one only warns.

    All limits hold together, so that what a customer has set can only lower what an admin allows.
    Of the measure `at_once`, which counts requests that are being answered, the period is "ever".
    """

    id: int
    subject_kind: str
    subject_id: str
    measure: Measure
    period: Period
    amount: int
    is_hard: bool = True
    set_by: SetBy = "admin"

    @property
    def name(self) -> str:
        """As it is told in headers and errors.

        >>> Limit(1, "key", "k", "rows", "minute", 100).name
        'key-rows-minute'
        >>> Limit(1, "key", "k", "rows", "minute", 100, set_by="customer").name
        'key-rows-minute-own'
        """
        return _name(self.subject_kind, self.measure, self.period, self.set_by)

    def window_s(self, now_s: float) -> int:
        """The moment at which the period of `now_s` began, in seconds since 1970 (UTC).

        >>> Limit(1, "key", "k", "rows", "month", 100).window_s(1_700_000_000)
        1698796800
        >>> Limit(1, "key", "k", "rows", "minute", 100).window_s(125.5)
        120
        """
        if self.period == "ever" or self.measure == "at_once":
            return 0
        return _ends(self.period, int(now_s))[0]

    def resets_in_s(self, now_s: float) -> int | None:
        """Whole seconds until the next period begins; None where there is none.

        >>> Limit(1, "key", "k", "rows", "minute", 100).resets_in_s(125.5)
        55
        """
        if self.measure == "at_once":
            return 1
        if self.period == "ever":
            return None
        return max(1, int(-(-(_ends(self.period, int(now_s))[1] - now_s) // 1)))


@lru_cache
def _name(subject_kind: str, measure: Measure, period: Period, set_by: SetBy) -> str:
    parts = [subject_kind, measure.replace("_", "-"), period]
    return "-".join(parts + (["own"] if set_by == "customer" else []))


@lru_cache(maxsize=64)
def _ends(period: Period, second: int) -> tuple[int, int]:
    """Where the period of a second begins and ends."""
    if period == "month":
        year, month = time.gmtime(second)[:2]
        following = (year + month // 12, month % 12 + 1, 1, 0, 0, 0)
        return calendar.timegm((year, month, 1, 0, 0, 0)), calendar.timegm(following)
    begins = second // SECONDS[period] * SECONDS[period]
    return begins, begins + SECONDS[period]


@dataclass(frozen=True)
class Price:
    """What `per` of a measure cost, in millionths of the currency."""

    measure: Measure
    micros: int
    per: int


MOST_SPENT = 10**15
"""What a request costs at most, in millionths: sums of it fit into a database's whole numbers."""


def spend_micros(usage: Usage, prices: Mapping[Measure, Price]) -> int:
    """What a usage costs, rounded up once, and at most MOST_SPENT.

    >>> spend_micros(Usage(rows=3), {"rows": Price("rows", 500_000, 1000)})
    1500
    """
    whole, rest = 0, 0.0
    for measure, price in prices.items():
        units = usage.of(measure) * price.micros
        whole += units // price.per
        rest += units % price.per / price.per
    return min(MOST_SPENT, whole + -int(-rest // 1))
