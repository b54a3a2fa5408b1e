"""Checks: each measures one thing of a model on rows, with its uncertainty.

A check is a function of truth and answers, so it serves an audit and live traffic alike. It
says which keys of an answer it needs; a target whose answers have them gets the check.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from modelyard.core.measure import Measure

NAMES = (
    *("table", "labels_table", "spans_table", "confusion", "calibration", "mistakes"),
    *("roc", "spans_mistakes", "residuals", "ranking", "ranking_mistakes"),
)
Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """What a check has found: measures that limits may name, and plain JSON for the report."""

    measures: tuple[Measure, ...]
    details: dict[str, Any]


@dataclass(frozen=True)
class Check:
    """A check and what it declares; of two with one name, one fits at most."""

    name: str
    needs: tuple[str, ...]
    """Keys an answer must have."""
    measures: tuple[str, ...]
    """The names of the measures it gives."""
    run: Callable[[Sequence[Any], Answers], Finding]
    """Truth (B,) and answers (B,) to a finding; B is 1 or more."""


def fitting(keys: Iterable[str]) -> list[Check]:
    """The checks that can be made on answers with these keys.

    >>> [check.name for check in fitting(["label"])]
    ['table', 'confusion']
    """
    given = set(keys)
    every = [cast(Check, import_module(f"modelyard.checks.{name}").CHECK) for name in NAMES]
    return [check for check in every if given.issuperset(check.needs)]
