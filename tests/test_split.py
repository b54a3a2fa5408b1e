"""Parting rows: the laws that hold for any rows, and what cannot be parted."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from modelyard.core.errors import SplitImpossible
from modelyard.core.project import Split
from modelyard.data.split import PARTS, TEST, TRAIN, VALIDATION, Parted, moment_of, split

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40).map(str), st.integers(0, 9)),
    min_size=12,
    max_size=80,
)
SHARES = st.sampled_from([(0.2, 0.1), (0.3, 0.0), (0.0, 0.2), (0.5, 0.25)])


def parted(
    rows: Sequence[tuple[str, str, Any]], column: list[Any] | None = None, **asked: Any
) -> Parted:
    labels, keys = [row[0] for row in rows], [row[1] for row in rows]
    return split(labels, keys, Split.model_validate(asked), column)


def assert_no_equal_text_across(rows: Sequence[tuple[str, str, Any]], found: Parted) -> None:
    places: dict[str, set[int]] = {}
    for row, place in zip(rows, found.part, strict=True):
        places.setdefault(row[1], set()).add(int(place))
    assert all(len(place) == 1 for place in places.values())


@settings(max_examples=40, deadline=None)
@given(ROWS, SHARES, st.integers(0, 5))
def test_shares(rows: list[Any], shares: tuple[float, float], seed: int) -> None:
    assume(min(Counter(row[0] for row in rows).values()) >= 3)
    assume(len({row[0] for row in rows}) == 2)
    asked: dict[str, Any] = {"test": shares[0], "validation": shares[1], "seed": seed}
    try:
        found = parted(rows, **asked)
    except SplitImpossible as error:
        assert "so none is left" in str(error)
        return
    assert len(found.part) == len(rows) and set(found.part) <= {TRAIN, VALIDATION, TEST}
    assert_no_equal_text_across(rows, found)
    assert all(found.part[row] == TRAIN for row in found.moved)
    assert (found.part == parted(rows, **asked).part).all()
    if not found.moved and shares[0]:
        assert (found.part == TEST).sum() == max(2, np.ceil(shares[0] * len(rows)))


@settings(max_examples=40, deadline=None)
@given(ROWS, SHARES, st.integers(0, 5))
def test_groups_stay_on_one_side(rows: list[Any], shares: tuple[float, float], seed: int) -> None:
    groups = [row[2] for row in rows]
    asked = {"test": shares[0], "validation": shares[1], "seed": seed, "group": "g"}
    try:
        found = parted(rows, groups, **asked)
    except SplitImpossible:
        return
    places: dict[int, set[int]] = {}
    for group, place in zip(groups, found.part, strict=True):
        places.setdefault(group, set()).add(int(place))
    assert all(len(place) == 1 for place in places.values())
    assert_no_equal_text_across(rows, found)
    assert found.moved == []
    wanted = {TEST: shares[0], VALIDATION: shares[1]}
    assert all((found.part == place).any() == (share > 0) for place, share in wanted.items())


@settings(max_examples=40, deadline=None)
@given(ROWS, SHARES)
def test_the_newest_are_the_test(rows: list[Any], shares: tuple[float, float]) -> None:
    rows = [(label, f"text {number}", time) for number, (label, _, time) in enumerate(rows)]
    times = [time for _, _, time in rows]
    try:
        found = parted(rows, times, test=shares[0], validation=shares[1], time="t")
    except SplitImpossible:
        return
    of_part = [[t for t, p in zip(times, found.part, strict=True) if p == x] for x in range(3)]
    bounds = [(min(part), max(part)) for part in of_part if part]
    assert all(before[1] <= after[0] for before, after in pairwise(bounds))
    assert len(of_part[TEST]) == np.ceil(shares[0] * len(rows))


def test_shares_are_those_that_scikit_learn_draws() -> None:
    labels = ["good" if i % 3 else "bad" for i in range(200)]
    found = split(labels, [str(i) for i in range(200)], Split.model_validate({}), None)
    _, test = train_test_split(range(200), test_size=0.2, stratify=labels, random_state=42)
    assert np.flatnonzero(found.part == TEST).tolist() == sorted(test)
    assert Counter(found.part.tolist()) == {TRAIN: 140, VALIDATION: 20, TEST: 40}
    shares = [np.mean(np.array(labels)[found.part == p] == "bad") for p in range(len(PARTS))]
    assert max(shares) - min(shares) < 0.03


def test_equal_texts_are_moved_to_training_and_told() -> None:
    rows = [("ab"[i % 2], str(i % 90), 0) for i in range(100)]
    found = parted(rows)
    assert found.moved
    assert_no_equal_text_across(rows, found)


def test_another_column_can_be_stratified() -> None:
    rows = [("ab"[i % 2], str(i), 0) for i in range(100)]
    column = ["zh" if i < 20 else "en" for i in range(100)]
    found = parted(rows, column, by="language")
    assert [sum(found.part[:20] == p) for p in (TRAIN, VALIDATION, TEST)] == [14, 2, 4]
    assert found.way == "stratified by language, seed 42"


def test_groups_that_share_a_text_stay_together() -> None:
    rows = [("ab"[i % 2], "shared" if i in (0, 99) else str(i), 0) for i in range(100)]
    found = parted(rows, [i // 10 for i in range(100)], group="company")
    assert found.groups_joined == 1
    assert len(set(found.part[[*range(10), *range(90, 100)]].tolist())) == 1


@pytest.mark.parametrize(
    ("column", "asked", "says"),
    [
        (["one"] * 20, {"group": "company"}, "1 groups of company"),
        (["a"] * 19 + ["b"], {"by": "company"}, "single row"),
        (["2024-01-31", "soon"] * 10, {"time": "date"}, "'soon'"),
        (["2024-01-31", "17"] * 10, {"time": "date"}, "mixed"),
        ([float("nan")] * 20, {"time": "date"}, "nan"),
        ([*range(20)], {"time": "date", "test": 0.5, "validation": 0.499}, "fewer than two"),
        (None, {"test": 0.6, "validation": 0.39}, "too few"),
    ],
)
def test_what_cannot_be_split_is_said(column: Any, asked: Any, says: str) -> None:
    with pytest.raises(SplitImpossible, match=says):
        parted([("ab"[i % 2], str(i), 0) for i in range(20)], column, **asked)


def test_a_part_whose_texts_all_stand_elsewhere_is_said() -> None:
    rows = [("ab"[i % 2], str(i % 16), 0) for i in range(20)]
    with pytest.raises(SplitImpossible, match="every test row"):
        parted(rows, [*range(20)], time="date", test=0.2, validation=0.1)


def test_moments_are_read() -> None:
    values = [
        datetime(2024, 1, 31, tzinfo=UTC),
        date(2024, 1, 31),
        "2024-01-31",
        "2024/01/31",
        " 2024-01-31T08:00+08:00",
    ]
    assert len({moment_of(value) for value in values}) == 1
    assert moment_of(3) == moment_of("3.0") == moment_of(Decimal(3)) == ("number", 3.0)
    assert [moment_of(bad) for bad in ("soon", "", float("inf"), "nan")] == [None] * 4


def test_parts_are_as_given_but_for_equal_texts() -> None:
    rows = [("ab"[n % 2], str(n), None) for n in range(12)]
    rows[10] = ("a", "0", None)  # equal to the first one, which is trained on
    column = ["train"] * 6 + ["Val", "dev"] + ["test"] * 3 + [" TEST "]
    found = parted(rows, column, given="part")
    assert found.part.tolist() == [TRAIN] * 6 + [VALIDATION] * 2 + [TEST, TEST, TRAIN, TEST]
    assert found.moved == [10] and found.way == "as given (part)"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["train", "train", "holdout"], "holds 'holdout'; it takes train"),
        (["train", "train", None], "holds None"),
        (["train", "train", "dev"], "No row has test"),
        (["train", "test", "test"], "fewer than two classes"),
    ],
)
def test_parts_that_cannot_be_as_given(column: list[Any], said: str) -> None:
    rows = [("a", "0", None), ("b", "1", None), ("b", "2", None)]
    with pytest.raises(SplitImpossible, match=said):
        parted(rows, column, given="part")
