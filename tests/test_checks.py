"""Checks: against scikit-learn, against the laws they keep, and against known answers."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, confusion_matrix

from modelyard.checks import fitting, limits
from modelyard.checks.calibration import calibration
from modelyard.checks.confusion import confusion
from modelyard.checks.difference import difference
from modelyard.checks.latency import MEASURES, latency, quantile, timed
from modelyard.checks.mistakes import mistakes
from modelyard.checks.roc import area_of, roc
from modelyard.checks.table import table
from modelyard.core.errors import SettingInvalid
from modelyard.core.measure import Measure
from modelyard.targets import find

LABELS = ["好评", "neutral", "pos"]
pairs = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60
)


def answers(found, scores=None):
    scores = [0.5] * len(found) if scores is None else scores
    return [{"label": f, "score": float(s)} for f, s in zip(found, scores, strict=True)]


def split(drawn):
    return [true for true, _ in drawn], [found for _, found in drawn]


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_table_is_that_of_scikit_learn(drawn):
    truth, found = split(drawn)
    ours = table(truth, answers(found)).details
    theirs = classification_report(truth, found, output_dict=True, zero_division=0)
    rows = {row["label"]: row for row in ours["classes"]}
    rows |= {f"{row['name']} avg": row for row in ours["averages"] if row["name"] != "micro"}
    for name, row in rows.items():
        for ours_name, name_of_theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert math.isclose(
                row[ours_name]["value"], theirs[name][name_of_theirs], abs_tol=1e-12
            )
        assert row["support"] == theirs[name]["support"]
    assert set(rows) | {"accuracy"} == set(theirs)
    micro = next(row for row in ours["averages"] if row["name"] == "micro")
    assert math.isclose(micro["f1"]["value"], theirs["accuracy"])


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_confusion_is_that_of_scikit_learn(drawn):
    truth, found = split([*drawn, ("pos", "neutral")])
    ours = confusion(truth, answers(found)).details
    assert ours["counts"] == confusion_matrix(truth, found, labels=ours["labels"]).tolist()
    assert sum(map(sum, ours["counts"])) == ours["rows"] == len(truth)
    assert all(pair["truth"] != pair["label"] for pair in ours["pairs"])


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_every_interval_of_the_table_lies_in_0_to_1_around_its_value(drawn):
    truth, found = split(drawn)
    details = table(truth, answers(found)).details
    for row in details["classes"]:
        for name in ("precision", "recall", "f1"):
            figure = row[name]
            assert 0 <= figure["low"] <= figure["value"] + 1e-12
            assert figure["value"] - 1e-12 <= figure["high"] <= 1


def test_most_confused_pairs_come_first():
    truth, found = list("aaaaabbbbb"), list("bbbaaabbbb")
    first, second = confusion(truth, answers(found)).details["pairs"]
    assert first == {"truth": "a", "label": "b", "count": 3, "support": 5}
    assert second == {"truth": "b", "label": "a", "count": 1, "support": 5}


def test_calibration_error_of_known_bins():
    truth = ["a"] * 10
    found = ["a"] * 8 + ["b"] * 2
    details = calibration(truth, answers(found, [0.9] * 10)).details
    assert math.isclose(details["ece"]["value"], 0.1)
    assert [(bin["rows"], bin["accuracy"]) for bin in details["bins"]] == [(10, 0.8)]
    assert sum(details["histogram"]["right"]) == 8
    assert sum(details["histogram"]["wrong"]) == 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80))
@settings(max_examples=30, deadline=None)
def test_calibration_counts_every_row_once(drawn):
    truth = ["a"] * len(drawn)
    found = ["a" if right else "b" for right, _ in drawn]
    finding = calibration(truth, answers(found, [score for _, score in drawn]))
    (ece,) = finding.measures
    assert 0 <= ece.low <= ece.value <= ece.high <= 1
    assert sum(bin["rows"] for bin in finding.details["bins"]) == len(drawn)
    counted = finding.details["histogram"]
    assert sum(counted["right"]) + sum(counted["wrong"]) == len(drawn)
    for bin in finding.details["bins"]:
        assert bin["from"] - 1e-12 <= bin["score"] <= bin["to"] + 1e-12


def test_honest_scores_have_a_smaller_error_than_boasting_ones():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.5, 1, 2000)
    found = ["a" if right else "b" for right in rng.random(2000) < scores]
    honest = calibration(["a"] * 2000, answers(found, scores)).measures[0]
    boasting = calibration(["a"] * 2000, answers(found, [1.0] * 2000)).measures[0]
    assert honest.high < boasting.low


def test_mistakes_are_listed_by_confidence():
    found = answers(["b", "a", "b", "b"], [0.6, 0.99, 0.9, 0.7])
    details = mistakes(["a", "a", "a", "b"], found).details
    assert [each["row"] for each in details["listed"]] == [2, 0]
    assert (details["wrong"], details["rows"]) == (2, 4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_difference_is_antisymmetric_and_inside_its_interval(drawn):
    truth = ["a"] * len(drawn)
    first, second = ([{"label": "a" if each[i] else "b"} for each in drawn] for i in (0, 1))
    one, other = difference(truth, first, second), difference(truth, second, first)
    assert math.isclose(one.value, -other.value)
    assert math.isclose(one.low, -other.high)
    assert -1 <= one.low <= one.value <= one.high <= 1 or abs(one.value) == 1
    assert {one.judgement, other.judgement} in ({"as good"}, {"better", "worse"})


@pytest.mark.parametrize(
    ("only_first", "only_second", "judgement"),
    [(30, 5, "better"), (5, 30, "worse"), (12, 9, "as good"), (0, 0, "as good")],
)
def test_judgement(only_first, only_second, judgement):
    both = 1000 - only_first - only_second
    yes, no = {"label": "a"}, {"label": "b"}
    first = [yes] * both + [yes] * only_first + [no] * only_second
    second = [yes] * both + [no] * only_first + [yes] * only_second
    assert difference(["a"] * 1000, first, second).judgement == judgement


def test_interval_of_the_difference_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    yes, no = {"label": "a"}, {"label": "b"}
    covered = 0
    for _ in range(300):
        cell = rng.choice(4, 200, p=[0.6, 0.15, 0.1, 0.15])
        first = [yes if each in (0, 1) else no for each in cell]
        second = [yes if each in (0, 2) else no for each in cell]
        found = difference(["a"] * 200, first, second)
        covered += found.low <= 0.05 <= found.high
    assert covered >= 0.91 * 300


def test_latency_calls_one_row_at_a_time_then_many():
    sizes = []
    finding = latency(
        lambda rows: sizes.append(len(rows)), [{"text": "a"}] * 3, budget_s=0.2, most_calls=50
    )
    assert tuple(measure.name for measure in finding.measures) == MEASURES
    assert set(sizes) == {1, 128}
    assert sizes.count(1) >= finding.details["calls"]
    values = [measure.value for measure in finding.measures[:3]]
    assert values == sorted(values)
    assert all(measure.low <= measure.value <= measure.high for measure in finding.measures)


def test_latency_keeps_its_budget_where_a_call_is_slow():
    from time import perf_counter, sleep

    began = perf_counter()
    assert len(timed(lambda rows: sleep(0.02), [[{}]], budget_s=0.1, most_calls=1000)) >= 2
    assert perf_counter() - began < 1


def test_quantile_interval_holds_the_true_quantile():
    rng = np.random.default_rng(2)
    kept = sum(
        (found := quantile(rng.exponential(1, 300).tolist(), 95)).low <= -math.log(0.05)
        and -math.log(0.05) <= found.high
        for _ in range(200)
    )
    assert kept >= 0.9 * 200


@pytest.mark.parametrize(
    ("limit", "holds", "certain"),
    [(">= 0.80", True, True), (">= 0.89", True, False), (">= 0.91", False, False),
     ("> 0.9", False, False), ("<= 0.5", False, True), ("< 0.99", True, True)],
)  # fmt: skip
def test_verdict_goes_by_the_value_and_tells_where_it_is_not_certain(limit, holds, certain):
    measure = Measure("accuracy", 0.9, 0.88, 0.92, 500)
    (judged,) = limits.verdict({"accuracy": limit}, {"accuracy": measure})
    assert (judged["holds"], judged["certain"]) == (holds, certain)
    assert judged["rows"] == 500


def test_unknown_limits_are_all_told_with_the_nearest_known():
    with pytest.raises(SettingInvalid, match=r"'acuracy', 'x'.*'accuracy'.*ece"):
        limits.refuse_unknown(["accuracy", "acuracy", "x"], ["accuracy", "ece"])
    limits.refuse_unknown(["ece"], ["accuracy", "ece"])


def test_checks_fit_by_what_answers_hold():
    assert [check.name for check in fitting(["label", "score", "scores"])] == [
        "table", "confusion", "calibration", "mistakes", "roc",
    ]  # fmt: skip
    assert [check.run.__name__ for check in fitting(["labels", "scores"])] == ["labels_table"]
    assert fitting(["value"]) == []


def test_an_average_without_mistakes_is_not_told_as_certain():
    details = table(["a", "b"] * 10, answers(["a", "b"] * 10)).details
    for row in details["averages"]:
        assert row["f1"]["value"] == row["f1"]["high"] == 1
        assert 0.8 < row["f1"]["low"] < 0.9


@given(pairs)
@settings(max_examples=30, deadline=None)
def test_target_and_table_measure_the_same(drawn):
    truth, found = split(drawn)
    measured = {m.name: m for m in find("class").score(truth, answers(found))}
    averages = {row["name"]: row["f1"] for row in table(truth, answers(found)).details["averages"]}
    assert math.isclose(measured["accuracy"].value, averages["micro"]["value"])
    for name in ("macro", "weighted"):
        ours, theirs = measured[f"{name}_f1"], averages[name]
        assert math.isclose(ours.value, theirs["value"], abs_tol=1e-12)
        assert math.isclose(ours.low, theirs["low"], abs_tol=0.05)
        assert math.isclose(ours.high, theirs["high"], abs_tol=0.05)


def test_difference_of_known_counts():
    yes, no = {"label": "a"}, {"label": "b"}
    found = difference(["a"] * 10, [yes] * 10, [yes] * 6 + [no] * 4)
    # by hand: d = 4 / 12, s = sqrt(5 - 16 / 12) / 12
    assert math.isclose(found.low, 4 / 12 - 1.959963984540054 * math.sqrt(5 - 16 / 12) / 12)
    assert (found.value, found.rows, found.only_first, found.only_second) == (0.4, 10, 4, 0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_figures_of_labels_are_those_of_scikit_learn(seed):
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    random = np.random.default_rng(seed)
    is_so, called = random.random((2, 40, 4)) < random.uniform(0.2, 0.8)
    is_so[0], called[1] = True, True
    truth, found = (
        [[f"l{n}" for n in np.flatnonzero(row)] for row in of] for of in (is_so, called)
    )
    given_labels = [{"labels": own, "scores": {}} for own in found]
    [check] = fitting(["labels"])
    told = check.run(truth, given_labels).details
    wanted = precision_recall_fscore_support(is_so, called, zero_division=0)
    for number, each in enumerate(told["classes"]):
        got = [each[name]["value"] for name in ("precision", "recall", "f1")] + [each["support"]]
        assert got == pytest.approx([column[number] for column in wanted])
    for each in told["averages"]:
        wanted = f1_score(is_so, called, average=each["name"], zero_division=0)
        assert each["f1"]["value"] == pytest.approx(wanted)
        assert each["f1"]["low"] <= wanted <= each["f1"]["high"]
    by_name = {measure.name: measure for measure in find("labels").score(truth, given_labels)}
    assert by_name["micro_f1"].value == pytest.approx(f1_score(is_so, called, average="micro"))
    assert by_name["exact_match"].value == pytest.approx((is_so == called).all(1).mean())


def test_labels_are_read_in_each_form_and_a_strange_one_is_refused():
    read = partial(find("labels").read, values={})
    assert read("b|a, c") == ["a, c", "b"] and read('["x", "x", 2]') == ["2", "x"]
    assert read(["a"]) == read("a") == ["a"] and read([]) == read("[]") == []
    for strange in ("[broken", {"a": 1}, b"a", [["a"]]):
        with pytest.raises(ValueError, match="holds"):
            read(strange)


def _scored(truth, scores):
    answers = [{"label": "", "scores": {"bad": s, "good": 1 - s}} for s in scores]
    return ["bad" if true else "good" for true in truth], answers


def test_area_and_precision_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    scores = (rng.normal(size=400) + truth).round(1) / 10 + 0.5  # with ties
    measures = {m.name: m for m in roc(*_scored(truth.tolist(), scores.tolist())).measures}
    false, found, _ = roc_curve(truth, scores)
    assert measures["auc"].value == pytest.approx(roc_auc_score(truth, scores))
    wanted = average_precision_score(truth, scores)
    assert measures["average_precision"].value == pytest.approx(wanted)
    assert measures["ks"].value == pytest.approx((found - false).max())
    assert measures["gini"].value == pytest.approx(2 * measures["auc"].value - 1)
    assert all(m.low < m.value < m.high for m in measures.values())


def test_the_interval_of_an_area_holds_the_truth_as_often_as_it_says() -> None:
    from scipy.stats import norm

    rng, truth, held = np.random.default_rng(1), np.arange(120) < 30, 0
    area = norm.cdf(1.5 / np.sqrt(2))
    for _ in range(300):
        _, low, high = area_of(truth, rng.normal(size=120) + 1.5 * truth)
        held += low <= area <= high
    assert 0.91 <= held / 300 <= 0.99


def test_scores_without_a_mistake_are_still_uncertain() -> None:
    truth = [True] * 10 + [False] * 30
    found = roc(*_scored(truth, [0.9] * 10 + [0.1] * 30))
    assert all(measure.value == 1 and measure.low < 0.9 for measure in found.measures)


def test_nothing_ranks_three_labels_or_rows_of_one() -> None:
    three = [{"label": "a", "scores": {"a": 0.5, "b": 0.3, "c": 0.2}}] * 3
    assert roc(["a", "b", "c"], three).measures == ()
    assert roc(*_scored([True, True], [0.4, 0.6])).measures == ()
    with pytest.raises(SettingInvalid, match="exactly two labels"):
        limits.refuse_unmeasured({"auc": ">= 0.9"}, {})


def test_the_curves_begin_and_end_in_the_corners() -> None:
    truth = (np.random.default_rng(2).random(2000) < 0.3).tolist()
    scores = np.random.default_rng(3).random(2000).tolist()
    details = roc(*_scored(truth, scores)).details
    assert details["roc"][0] == [0, 0] and details["roc"][-1] == [1, 1]
    assert details["precision_recall"][-1] == [1, pytest.approx(np.mean(truth), abs=1e-4)]
    assert details["positive"] == "bad" and len(details["roc"]) <= 202
