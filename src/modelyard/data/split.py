"""Parting rows into training, validation and test: by shares, group or time, or as given."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import SplitImpossible
from modelyard.core.project import Split

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
GIVEN = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    "test": TEST,
}
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Parted:
    """The part of each row (N,), as an index of PARTS, and what had to be done for it."""

    part: Indices
    way: str
    moved: list[int]
    """Rows put into training because an equal text is there."""
    groups_joined: int = 0
    """Groups that stay together because they share a text."""


def split(
    labels: Sequence[str], keys: Sequence[str], settings: Split, column: Sequence[Any] | None
) -> Parted:
    """Part N rows; `keys` (N,) are equal where texts are.

    `column` (N,) holds what by, group, time or given names. The same rows and settings give the
    same parts. Equal texts never stand on two sides, nor do equal groups. Raises SplitImpossible.
    """
    joined = 0
    if settings.group and column is not None:
        part, joined = _by_group([str(value) for value in column], keys, settings)
        way = f"by group ({settings.group}), seed {settings.seed}"
    elif settings.time and column is not None:
        part = _by_time(column, settings)
        way = f"by time ({settings.time}): the newest rows are the test"
    elif settings.given and column is not None:
        part = _as_given(column, settings)
        way = f"as given ({settings.given})"
    else:
        strata = labels if column is None else [str(value) for value in column]
        part = _stratified(strata, settings)
        way = f"stratified by {settings.by or 'the target'}, seed {settings.seed}"
    asked = [place for place in (VALIDATION, TEST) if (part == place).any()]
    moved = _move_equal_texts(part, keys)
    _look_at(part, labels, way)
    _refuse_emptied(part, asked, way)
    return Parted(part, way, moved, joined)


def _look_at(part: Indices, labels: Sequence[str], way: str) -> None:
    left = {label for label, place in zip(labels, part, strict=True) if place == TRAIN}
    if len(left) < min(2, len(set(labels))):
        found = ", ".join(map(repr, left)) or "none"
        raise SplitImpossible(
            f"Split {way}, the training rows have fewer than two classes ({found}); add rows, "
            "lower data.split.test and data.split.validation, or split another way."
        )


def _refuse_emptied(part: Indices, asked: Sequence[int], way: str) -> None:
    """Refuse a part that was asked for and lost all its rows to training."""
    for place in asked:
        if not (part == place).any():
            raise SplitImpossible(
                f"Split {way}, every {PARTS[place]} row has a text that stands in another part "
                "too, so none is left; add rows with other texts, or split another way."
            )


def _stratified(strata: Sequence[str], settings: Split) -> Indices:
    """Each part with the same shares of strata, as train_test_split of scikit-learn draws them."""
    rows = np.arange(len(strata))
    names = np.array(strata, dtype=object)
    _refuse_small_strata(strata, settings)
    part = np.full(len(rows), TRAIN, dtype=np.int64)
    rest, test = _drawn(rows, names, settings.test, len(rows), settings.seed)
    counts = Counter(names[rest])
    able = np.array([row for row in rest if counts[names[row]] > 1], dtype=np.int64)
    _, validation = _drawn(able, names, settings.validation, len(rows), settings.seed)
    part[test], part[validation] = TEST, VALIDATION
    return part


def _refuse_small_strata(strata: Sequence[str], settings: Split) -> None:
    small = sorted(name for name, count in Counter(strata).items() if count < 2)
    if small:
        raise SplitImpossible(
            f"{len(small)} values of {settings.by or 'the target'} have a single row "
            f"({', '.join(map(repr, small[:5]))}), so no two parts can have their shares; choose "
            "another column in data.split."
        )


def _drawn(
    rows: Indices, names: NDArray[np.object_], share: float, of_rows: int, seed: int
) -> tuple[Indices, Indices]:
    """Rows less a share, and that share of `of_rows`, with strata kept."""
    if share == 0:
        return rows, rows[:0]
    from sklearn.model_selection import train_test_split

    strata = np.unique(names[rows].astype(str))
    size = max(math.ceil(share * of_rows), len(strata))
    if len(rows) - size < len(strata):
        raise SplitImpossible(
            f"{of_rows} rows in {len(strata)} classes are too few to be split; add rows, or "
            "lower data.split.test or data.split.validation."
        )
    left, drawn = train_test_split(
        rows, test_size=size, stratify=names[rows].astype(str), random_state=seed
    )
    return left, drawn


def _by_group(groups: Sequence[str], keys: Sequence[str], settings: Split) -> tuple[Indices, int]:
    """Whole groups in a random order, each to the part that comes nearer to its share by it."""
    units = _units(groups, keys)
    part = np.full(len(groups), TRAIN, dtype=np.int64)
    order = np.random.default_rng(settings.seed).permutation(len(units))
    left = [units[position] for position in order]
    for place, share in ((TEST, settings.test), (VALIDATION, settings.validation)):
        chosen = _nearest(left, share * len(groups))
        if share and (not chosen or len(chosen) == len(left)):
            raise SplitImpossible(
                f"The {len(units)} groups of {settings.group} are too few or too large for three "
                "parts; choose another column in data.split, or split by shares."
            )
        for position in chosen:
            part[left[position]] = place
        left = [unit for position, unit in enumerate(left) if position not in chosen]
    return part, len(set(groups)) - len(units)


def _nearest(units: Sequence[Sequence[int]], wanted: float) -> set[int]:
    """Units, in their order, whose rows together come near to `wanted`; one where wanted > 0."""
    chosen, rows = set(), 0
    for position, unit in enumerate(units):
        if abs(rows + len(unit) - wanted) < abs(rows - wanted):
            chosen.add(position)
            rows += len(unit)
    if wanted and not chosen and len(units) > 1:
        chosen = {min(range(len(units)), key=lambda position: len(units[position]))}
    return chosen


def _units(groups: Sequence[str], keys: Sequence[str]) -> list[list[int]]:
    """Rows that must stay together, through equal groups and equal texts."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    for group, key in zip(groups, keys, strict=True):
        parent[root(("text", key))] = root(("group", group))
    units: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        units[root(("group", group))].append(index)
    return list(units.values())


def _as_given(column: Sequence[Any], settings: Split) -> Indices:
    """The part that each row names."""
    names = [str(value).strip().casefold() for value in column]
    strange = [value for value, name in zip(column, names, strict=True) if name not in GIVEN]
    if strange:
        raise SplitImpossible(
            f"The column {settings.given!r} of data.split.given holds {strange[0]!r}; it takes "
            "train, validation (or valid, val, dev) and test."
        )
    part = np.array([GIVEN[name] for name in names], dtype=np.int64)
    if not (part == TEST).any():
        raise SplitImpossible(
            f"No row has test in the column {settings.given!r} of data.split.given, so there would "
            "be nothing to audit the model on; name the test rows."
        )
    return part


def _by_time(column: Sequence[Any], settings: Split) -> Indices:
    """The newest rows are the test, the newest of the others the validation rows."""
    moments = [moment_of(value) for value in column]
    unread = next((i for i, moment in enumerate(moments) if moment is None), None)
    if unread is not None or len({kind for kind, _ in filter(None, moments)}) > 1:
        example = column[unread] if unread is not None else "dates and numbers mixed"
        raise SplitImpossible(
            f"The column {settings.time!r} of data.split.time cannot be put in order "
            f"({example!r}); it takes numbers, or dates such as 2024-01-31 or 2024-01-31T18:00."
        )
    order = np.argsort(np.array([m[1] for m in moments if m]), kind="stable")
    test, validation = (math.ceil(s * len(order)) for s in (settings.test, settings.validation))
    part = np.full(len(order), TRAIN, dtype=np.int64)
    part[order[len(order) - test - validation :]] = VALIDATION
    part[order[len(order) - test :]] = TEST
    return part


def moment_of(value: Any) -> tuple[str, float] | None:
    """A moment as (number or date, how late), or None where it is neither.

    >>> moment_of("2024/01/31")[0], moment_of("17"), moment_of("soon")
    ('date', ('number', 17.0), None)
    """
    if isinstance(value, datetime | date):
        value = value if isinstance(value, datetime) else datetime.combine(value, time())
    elif isinstance(value, int | float | Decimal):
        return ("number", float(value)) if math.isfinite(value) else None
    else:
        value = _parsed(str(value).strip())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return "date", aware.timestamp()
    return ("number", value) if isinstance(value, float) and math.isfinite(value) else None


def _parsed(text: str) -> float | datetime | None:
    for read in (float, datetime.fromisoformat):
        try:
            return read(text.replace("/", "-"))
        except ValueError:
            continue
    return None


def _move_equal_texts(part: Indices, keys: Sequence[str]) -> list[int]:
    """Put rows into training whose text stands in another part too; changes `part`."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        rows_of[key].append(index)
    across = (rows for rows in rows_of.values() if len({int(part[row]) for row in rows}) > 1)
    moved = sorted(row for rows in across for row in rows if part[row] != TRAIN)
    part[moved] = TRAIN
    return moved
