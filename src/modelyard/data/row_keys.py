"""Row keys: what rows that say the same have in common, whatever file they came in."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from modelyard.data.same import normalised


class Tells(Protocol):
    """What must be known of a column's kind."""

    identifies: bool

    def key(self, value: Any) -> str:
        """What equal values have in common."""


def row_key(
    kinds: Mapping[str, Tells], row: Mapping[str, Any], shape: Callable[[str], str] = normalised
) -> str | None:
    """A row's input values in a shape; None where equal rows may well differ, as in a table.

    Of several columns each value stands under its name: a title is not what a body is.
    """
    shaped = [(name, shape(value)) for name, value in values_told(kinds, row).items()]
    if not shaped:
        return None
    return shaped[0][1] if len(kinds) == 1 else json.dumps(shaped)


def values_told(kinds: Mapping[str, Tells], row: Mapping[str, Any]) -> dict[str, str]:
    """What a row is known again by, by column; nothing where equal rows may differ."""
    there = {name: kind for name, kind in kinds.items() if row[name] is not None}
    tells = any(kind.identifies for kind in there.values())
    return {name: kind.key(row[name]) for name, kind in there.items()} if tells else {}
