"""Periods: the hours for which usage is told, and by what it can be told apart."""

import calendar
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.core.errors import SettingInvalid

BY = {
    "organisation": "organisation_id",
    "project": "project_id",
    "key": "key_id",
    "release": "release",
    "version": "version",
    "hour": "hour_s",
}
"""By what usage can be told apart, and the column of each."""
MONTH = r"^2[0-9]{3}-(0[1-9]|1[0-2])$"


@dataclass(frozen=True)
class Period:
    """From a moment to before another, in whole hours since 1970 (UTC)."""

    start_s: int
    end_s: int


def this_month() -> str:
    """The month of now (UTC), as in 2026-11."""
    return time.strftime("%Y-%m", time.gmtime())


def month(text: str) -> Period:
    """The hours of a month such as 2026-11; raises SettingInvalid.

    >>> month("2026-12")
    Period(start_s=1796083200, end_s=1798761600)
    """
    if not re.fullmatch(MONTH, text):
        raise SettingInvalid(f"A month is a year and a month, as in 2026-11; got {text[:80]!r}.")
    year, number = (int(part) for part in text.split("-"))
    following = (year + number // 12, number % 12 + 1)
    start, end = (calendar.timegm((y, m, 1, 0, 0, 0)) for y, m in ((year, number), following))
    return Period(start, end)


def columns(by: Sequence[str]) -> list[str]:
    """The columns for names of BY; raises SettingInvalid.

    >>> columns(["project", "hour"])
    ['project_id', 'hour_s']
    """
    if strange := [name for name in by if name not in BY]:
        raise SettingInvalid(
            f"Usage is told by some of {', '.join(BY)}; got {', '.join(strange)[:80]!r}."
        )
    return [BY[name] for name in dict.fromkeys(by)]
