"""Limits: what [accept] asks for, held against what was measured."""

import difflib
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from modelyard.core.errors import SettingInvalid
from modelyard.core.measure import Measure
from modelyard.core.project import LIMIT

HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def refuse_unknown(accept: Iterable[str], known: Iterable[str]) -> None:
    """Raise SettingInvalid for a limit on a measure that nothing measures."""
    names = list(known)
    strange = [name for name in accept if name not in names]
    if not strange:
        return
    near = difflib.get_close_matches(strange[0], names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SettingInvalid(
        f"[accept] sets a limit on {', '.join(map(repr, strange))}, which no check measures; "
        f"{hint}Known limits: {', '.join(names)}."
    )


def refuse_unmeasured(accept: Iterable[str], measures: Mapping[str, Measure]) -> None:
    """Raise SettingInvalid for a limit on a measure that these rows do not have."""
    if lacking := [name for name in accept if name not in measures]:
        raise SettingInvalid(
            f"[accept] sets a limit on {', '.join(map(repr, lacking))}, which cannot be measured "
            "on the test rows (auc, average_precision, ks and gini want exactly two labels, and "
            f"rows of both); measured were: {', '.join(measures)}."
        )


def verdict(accept: Mapping[str, str], measures: Mapping[str, Measure]) -> list[dict[str, Any]]:
    """Each limit with what was measured and whether it holds; the point value decides.

    `certain` is false where the limit lies inside the interval: other rows of the same kind
    could have decided otherwise.
    """
    return [_judged(name, limit, measures[name]) for name, limit in accept.items()]


def holds(limit: str, value: float) -> bool:
    """Whether a value keeps a limit such as ">= 0.9".

    >>> holds(">= 0.9", 0.92), holds("< 20", 20.0)
    (True, False)
    """
    if not (match := LIMIT.match(limit)):
        raise SettingInvalid(f'Write a limit as ">= 0.9" or "<= 20"; got {limit!r}.')
    return bool(HOLDS[match.group(1)](value, float(match.group(2))))


def _judged(name: str, limit: str, measure: Measure) -> dict[str, Any]:
    kept = [holds(limit, end) for end in (measure.value, measure.low, measure.high)]
    return {
        "name": name,
        "limit": limit,
        "value": measure.value,
        "low": measure.low,
        "high": measure.high,
        "rows": measure.rows,
        "unit": measure.unit,
        "holds": kept[0],
        "certain": all(kept) or not any(kept),
    }
