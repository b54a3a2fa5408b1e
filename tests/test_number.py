"""The number target: what it reads, its losses, intervals and measures, and the report."""

import json
import math
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from tests.test_audit import assert_balanced

from modelyard.checks.difference import number_difference
from modelyard.checks.residuals import residuals
from modelyard.core.artefacts import ColumnState, Dataset, ModelSpec
from modelyard.core.errors import NothingToLearn
from modelyard.core.events import silent
from modelyard.core.intervals import INTERVAL_SHARE
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.store import Draft
from modelyard.models.evaluation import Evaluation
from modelyard.runtime.encoded import Encoded
from modelyard.stages.choice import Choice, named
from modelyard.stages.papers.facts import public_report
from modelyard.stages.prepare import prepare
from modelyard.stages.report import numbers
from modelyard.stages.report.page import templates
from modelyard.stages.rungs import Rung, agreement, loss_of
from modelyard.targets import Settles, find
from modelyard.targets.number import LARGEST, LEVELS

TARGET: Any = find("number")
NO_ROWS = Encoded({}, np.zeros(0, np.int64), np.zeros(0, np.int64))
finite = st.floats(-LARGEST, LARGEST)
truths = st.lists(finite, min_size=2, max_size=40)


def answers(values, reach=1.0):
    return [{"value": float(v), "low": float(v) - reach, "high": float(v) + reach} for v in values]


@pytest.mark.parametrize(
    ("given_value", "number"),
    [
        *((3, 3.0), (-2.5, -2.5), (Decimal("1.25"), 1.25), (np.float32(0.5), 0.5)),
        *((" 12 ", 12.0), (".5", 0.5), ("5.", 5.0), ("1E-3", 0.001), ("+7", 7.0)),
        *(("1,234.5", 1234.5), ("-1,234,567", -1234567.0), ("１２", 12.0)),
        *(("1 234", 1234.0), ("1\u202f234\u202f567.5", 1234567.5), ("12'345", 12345.0)),
    ],
)
def test_a_number_is_read_however_it_is_written(given_value: Any, number: float) -> None:
    found = TARGET.read(given_value, {})
    assert type(found) is float
    assert found == number


@pytest.mark.parametrize(
    ("given_value", "said"),
    [
        *((True, "bool"), ([1], "list"), (b"1", "bytes"), (None, "NoneType")),
        *(("12 km", "'12 km', which is no number"), ("$5", "no number"), ("", "no number")),
        *(("1,234", "may be 1234 or 1.234; write it without the comma"), ("1,5", "no number")),
        *(("1.234,5", "no number"), ("1,23,456", "no number"), ("1_000", "no number")),
        *(("nan", "no number"), ("inf", "no number"), ("10²", "no number")),
        *((float("inf"), "at most 1e+30"), (float("nan"), "at most 1e+30"), ("1e999", "at most")),
        *((10**400, "at most 1e+30"), (1.1e30, "at most 1e+30"), ("1 2345", "no number")),
    ],
)
def test_what_is_no_number_or_may_be_two_is_refused(given_value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"^holds ") as caught:
        TARGET.read(given_value, {})
    assert said in str(caught.value)


@given(finite, st.integers(10**6, 10**15))
def test_a_number_and_its_text_are_read_alike(number: float, whole: int) -> None:
    assert TARGET.read(number, {}) == TARGET.read(repr(number), {}) == number
    assert math.copysign(1, TARGET.read(number * 0.0, {})) == 1
    for separator in (",", " ", "'", "\u202f"):
        assert TARGET.read(f"{whole:,}".replace(",", separator), {}) == whole


@given(truths, st.lists(finite, min_size=1, max_size=5), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_losses_are_finite_and_of_each_row(learned: list, others: list, seed: int) -> None:
    state = TARGET.learn(learned)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    truth = torch.from_numpy(TARGET.truth(others, state, NO_ROWS))
    outputs = 50 * torch.randn(len(others), 3, generator=torch.Generator().manual_seed(seed))
    losses = TARGET.losses(outputs, truth, state, {"label_smoothing": 0.1})
    assert losses.shape == (len(others),)
    assert bool((losses.isfinite() & (losses >= 0)).all())
    alone = TARGET.losses(outputs[:1], truth[:1], state, {})
    torch.testing.assert_close(losses[:1], alone)


@given(truths, st.integers(0, 2**32 - 1), st.floats(-3, 3))
@settings(deadline=None)
def test_value_lies_within_its_interval_whatever_the_network_says(
    learned: list, seed: int, margin: float
) -> None:
    state = TARGET.learn(learned) | {"margin": margin}
    outputs = np.random.default_rng(seed).normal(scale=5, size=(20, 3)).astype(np.float32)
    for answer in TARGET.decode(outputs, state):
        assert answer["low"] <= answer["value"] <= answer["high"]
        assert all(map(math.isfinite, answer.values()))


@given(st.integers(0, 2**32 - 1), st.sampled_from([-1.0, -0.1, 0.03, 0.5]), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_no_other_constant_costs_less_than_the_quantiles(seed: int, by: float, which: int) -> None:
    learned = np.random.default_rng(seed).lognormal(size=401).tolist()
    state = TARGET.learn(learned)
    truth = torch.from_numpy(TARGET.truth(learned, state, NO_ROWS))
    nothing, other = torch.zeros(401, 3), torch.zeros(401, 3)
    other[:, which] = by
    cost, more = (float(TARGET.losses(o, truth, state, {}).mean()) for o in (nothing, other))
    assert cost <= more + 1e-6
    [answer] = TARGET.decode(np.zeros((1, 3), np.float32), state)
    wanted = np.quantile(learned, LEVELS)
    assert [answer[end] for end in ("low", "value", "high")] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("learned", "scale"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0], 2 / 1.349),  # quartiles 1 and 3
        ([0.0] * 8 + [10.0, -10.0], 11 / 3.29),  # equal quartiles, 5 % and 95 % at ±5.5
        ([7.0] * 99 + [17.0], float(np.std([7.0] * 99 + [17.0]))),
        ([7.0] * 5, 1.0),
    ],
)
def test_the_scale_is_that_of_the_middle_half_if_it_has_one(learned: list, scale: float) -> None:
    assert TARGET.learn(learned)["scale"] == pytest.approx(scale)


@given(st.integers(9, 200), st.integers(0, 2**32 - 1), st.floats(0.2, 5))
@settings(max_examples=50, deadline=None)
def test_settled_intervals_hold_nine_in_ten_of_the_rows_they_were_settled_on(
    rows: int, seed: int, spread: float
) -> None:
    random = np.random.default_rng(seed)
    found = random.normal(scale=spread, size=rows)
    state = TARGET.learn(random.normal(size=50).tolist())
    outputs = random.normal(scale=0.3, size=(rows, 3)).astype(np.float32)
    assert isinstance(TARGET, Settles)
    settled, told = TARGET.settle(outputs, found.tolist(), state)
    measured = TARGET.score(found.tolist(), TARGET.decode(outputs, settled))[-1]
    assert measured.value + 1e-9 >= INTERVAL_SHARE
    assert measured.value <= INTERVAL_SHARE + 2 / rows or settled["margin"] < 0
    assert ("wider" in told) == (settled["margin"] > 0)
    assert settled | {"margin": 0.0} == state


def test_few_validation_rows_give_the_margin_of_the_farthest() -> None:
    state = TARGET.learn([float(n) for n in range(100)])
    settled, _ = TARGET.settle(np.zeros((3, 3), np.float32), [50.0, 60.0, 150.0], state)
    assert TARGET.decode(np.zeros((1, 3), np.float32), settled)[0]["high"] == pytest.approx(150)


@given(truths.filter(lambda found: len(found) > 3))
def test_parts_of_the_rows_follow_the_truth_and_are_equally_large(found: list) -> None:
    strata = TARGET.strata(found)
    numbers_of = [int(name.split()[1]) for name in strata]
    in_order = [part for _, part in sorted(zip(found, numbers_of, strict=True))]
    assert in_order == sorted(in_order)
    counts = [strata.count(name) for name in set(strata)]
    assert max(counts) - min(counts) <= 1 and len(counts) == max(1, min(10, len(found) // 10))


def test_truths_that_teach_nothing_are_refused() -> None:
    with pytest.raises(NothingToLearn, match="needs 10 rows or more, and there are 9"):
        TARGET.check([1.0, 2.0, 3.0] * 3)
    with pytest.raises(NothingToLearn, match=r"same number \(4\.5\)"):
        TARGET.check([4.5] * 20)
    TARGET.check([4.5] * 19 + [5.0])


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=60))
@settings(deadline=None)
def test_the_figures_are_those_of_scikit_learn(drawn: list) -> None:
    truth, found = map(list, zip(*drawn, strict=True))
    mae, rmse, r2, coverage = TARGET.score(truth, answers(found, reach=10.0))
    assert mae.value == pytest.approx(mean_absolute_error(truth, found))
    assert rmse.value == pytest.approx(root_mean_squared_error(truth, found))
    if np.ptp(truth) > 1e-3:
        assert r2.value == pytest.approx(r2_score(truth, found))
    inside = [f - 10.0 <= t <= f + 10.0 for t, f in drawn]
    assert coverage.value == sum(inside) / len(inside)
    for measure in (mae, rmse, r2, coverage):
        assert measure.low <= measure.value <= measure.high or measure.name == "coverage"
        assert measure.rows == len(drawn) and math.isfinite(measure.low)
    assert [each.higher_is_better for each in (mae, rmse, r2, coverage)] == [False] * 2 + [True] * 2


def test_intervals_hold_the_true_figures_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    true = {"mae": math.sqrt(2 / math.pi), "rmse": 1.0, "r2": 1 - 1 / 10}
    held = dict.fromkeys(true, 0)
    for _ in range(400):
        found = random.normal(scale=3, size=300)
        truth = found + random.normal(size=300)
        for measure in TARGET.score(truth.tolist(), answers(found))[:3]:
            held[measure.name] += measure.low <= true[measure.name] <= measure.high
    assert all(0.91 <= times / 400 <= 0.985 for times in held.values()), held


def test_one_row_is_no_certainty_and_equal_truths_explain_nothing() -> None:
    mae, rmse, r2, _ = TARGET.score([3.0], answers([5.0]))
    assert (mae.value, rmse.value) == (2.0, 2.0)
    assert mae.low == 0.0 and mae.high > 5 and r2.value == 0.0
    assert TARGET.score([3.0, 3.0], answers([5.0, 1.0]))[2].value == 0.0


def test_of_an_error_less_is_better_and_an_earlier_epoch_has_to_be_clearly_better() -> None:
    small, large = (
        Evaluation(0.5, [Measure("mae", value, value - 0.98, value + 0.98, 64, False)])
        for value in (3.0, 3.4)
    )
    assert small.rank("mae") > large.rank("mae")
    assert small.error("mae") == pytest.approx(0.5)
    assert large.rank("mae")[0] >= small.rank("mae")[0] - small.error("mae")


@given(st.integers(0, 2**32 - 1), st.floats(1.5, 4))
@settings(max_examples=25, deadline=None)
def test_who_is_nearer_is_better_and_the_other_worse(seed: int, times: float) -> None:
    random = np.random.default_rng(seed)
    truth, noise = random.normal(size=(2, 200))
    near, far = answers(truth + noise), answers(truth + times * noise)
    forth, back = number_difference(truth, near, far), number_difference(truth, far, near)
    assert forth.value == pytest.approx(1 - 1 / times) and forth.judgement == "better"
    assert back.value == pytest.approx(1 - times) and back.judgement == "worse"
    assert (forth.only_first, forth.only_second) == (back.only_second, back.only_first) == (200, 0)
    assert forth.low <= forth.value <= forth.high <= 1 and forth.unit == "%"
    assert number_difference(truth, near, near).judgement == "as good"


def test_what_has_no_error_cannot_be_bettered() -> None:
    exact, off = answers([1.0, 2.0]), answers([1.5, 2.5])
    assert number_difference([1.0, 2.0], exact, exact).value == 0
    assert number_difference([1.0, 2.0], off, exact).value < 0
    assert number_difference([1.0, 2.0], exact, off).value == 1


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=120),
    st.floats(0, 1e9),
)
@settings(deadline=None)
def test_residuals_count_every_row_once(drawn: list, reach: float) -> None:
    truth, found = map(list, zip(*drawn, strict=True))
    told = residuals(truth, answers(found, reach)).details
    json.dumps(told, allow_nan=False)
    grid, rows = told["grid"], len(drawn)
    assert sum(part["rows"] for part in told["parts"]) == rows
    assert sum(told["histogram"]["counts"]) == rows
    assert sum(count for *_, count in grid["counts"]) + grid["beyond"] == rows
    assert all(0 <= cell < grid["cells"] for *cells, _ in grid["counts"] for cell in cells)
    assert [part["from"] for part in told["parts"]] == sorted(p["from"] for p in told["parts"])
    sizes = [abs(each["value"] - each["truth"]) for each in told["listed"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(abs(f - t) for t, f in drawn)


def test_a_few_far_rows_do_not_hide_the_others() -> None:
    truth = [float(n % 100) for n in range(1000)]
    told = residuals([*truth, 1e9], answers([*truth, 50.0])).details
    assert told["grid"]["to"] < 200 and told["grid"]["beyond"] == 1
    assert told["listed"][0]["row"] == 1000


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e7])
def test_the_residuals_are_drawn_at_any_scale(scale: float) -> None:
    random = np.random.default_rng(0)
    truth = scale * random.lognormal(size=300)
    told = residuals(truth, answers(truth + scale * random.normal(size=300), scale)).details
    for each in told["listed"]:
        each |= {"inputs": {"text": "<b>很好</b>"}, "pictures": {}}
    macros: Any = templates().get_template("parts.html.j2").module
    drawn = "".join(
        [
            str(macros.answers_and_truths(told["grid"])),
            str(macros.residuals_by_part(told["parts"])),
            str(macros.residual_histogram(told["histogram"])),
            str(macros.residual_table(told["parts"])),
            str(macros.largest_errors(told["listed"])),
        ]
    )
    assert_balanced(drawn)
    assert "&lt;b&gt;很好" in drawn and "nan" not in drawn
    assert numbers.amount(told["listed"][0]["truth"]) in drawn


def test_a_release_tells_no_truth_of_a_row() -> None:
    found = {"verdict": [], "baselines": [], "main": "mae", "inputs": [{"column": "text"}]}
    found |= {"target": {"column": "price"}, "residuals": {"rows": 1, "listed": [{"truth": 5.0}]}}
    found["measures"] = [Measure("mae", 1.0, 0.5, 1.5, 9, False).to_json()]
    spec = ModelSpec(
        name="x", version="1", inputs=[], target=ColumnState(column="p", kind="number", state={})
    )
    public = public_report(found, spec)
    assert public["residuals"] == {"rows": 1, "listed": []}
    assert "mean absolute error (MAE) 1.00 on 9 test rows" in public["headline"][0]


def test_the_loss_of_an_error_is_a_share_of_it() -> None:
    network, graph = (Measure("mae", v, 0, 9, 200, False) for v in (50.0, 50.4))
    assert loss_of(network, graph) == pytest.approx(0.008)
    assert loss_of(Measure("r2", 0.9, 0, 1, 9), Measure("r2", 0.8, 0, 1, 9)) == pytest.approx(0.1)
    assert agreement(answers([1.0]), answers([1.1])) is None
    rungs = [Rung("fp32", 4, network, 0.0, None, 0.0), Rung("int8", 1, graph, 0.008, None, 0.4)]
    assert named(rungs, "int8", 0.01) == Choice(
        "int8",
        "int8 adds 0.80 % to mae on 200 validation rows and is 4.0 × smaller",
    )
    refused = named(rungs, "int8", 0.005)
    assert refused.name == "fp32"
    assert "more than compress.max_loss = 0.005 allows" in refused.why


def test_baselines_are_the_median_a_line_with_honest_intervals_and_trees() -> None:
    random = np.random.default_rng(2)
    features, test_features = random.normal(size=(2, 400, 3))
    line = np.array([3.0, -1.0, 0.5])
    truth, test_truth = features @ line, test_features @ line + random.normal(size=400)
    truth += random.normal(size=400)
    found = TARGET.baselines("numbers", features, truth.tolist(), test_features, {})
    constant, ridge, trees = found
    assert [each.name for each in found] == [
        *("median", "numbers with ridge regression", "numbers with boosted trees")
    ]
    assert all(own["low"] <= own["value"] <= own["high"] for own in trees.answers)
    assert number_difference(test_truth, trees.answers, constant.answers).judgement == "better"
    sparse = TARGET.baselines("words", csr_array(features), truth.tolist(), test_features, {})
    assert len(sparse) == 2
    assert {answer["value"] for answer in constant.answers} == {float(np.median(truth))}
    mae, *_, coverage = TARGET.score(test_truth.tolist(), ridge.answers)
    assert mae.value == pytest.approx(math.sqrt(2 / math.pi), abs=0.15)
    assert coverage.low <= 0.9 <= coverage.high
    assert number_difference(test_truth, ridge.answers, constant.answers).judgement == "better"


def test_a_column_of_numbers_is_prepared_and_told(tmp_path: Path) -> None:
    rows = [f'house number {n},"{1000 + 37 * n:,}.00"' for n in range(100)]
    wrong = ["a house,ask us", 'a villa,"1,234"', "a castle,", "a hut,inf"]
    (tmp_path / "rows.csv").write_text("\n".join(["text,price", *rows, *wrong]), encoding="utf-8")
    project = Project.model_validate(
        {
            "name": "homes",
            "data": {"rows": "rows.csv"},
            "inputs": {"text": "text"},
            "target": {"column": "price", "kind": "number"},
        }
    )
    project._folder = tmp_path
    (tmp_path / "out").mkdir()
    prepare.run(project, Draft(tmp_path / "out", tmp_path / "kept", {}), silent)
    told = Dataset(tmp_path / "out").read_json("data-report.json")
    assert told["refused"] == {"missing value": 1, "wrong target": 3}
    assert told["split"]["rows"] == {"train": 70, "validation": 10, "test": 20}
    assert told["classes"] == [] and told["amounts"]["train"]["min"] == 1000.0
    middles = [told["amounts"][part]["p50"] for part in ("train", "validation", "test")]
    assert max(middles) - min(middles) < 0.1 * 3700
    refused = (tmp_path / "out" / "refused.jsonl").read_text("utf-8").splitlines()
    assert "may be 1234 or 1.234; write it without the comma" in json.loads(refused[1])["reason"]
    page = str(
        templates().get_template("parts.html.j2").module.amounts_by_part("price", told["amounts"])  # type: ignore[attr-defined]
    )
    assert_balanced(page)
    assert "price, the target" in page


def test_a_difference_says_what_it_is_in() -> None:
    told = asdict(number_difference([1.0, 2.0], answers([1.1, 2.2]), answers([2.0, 3.0])))
    assert told["unit"] == "%"
    assert numbers.shown("better_than_baseline", 12.34, told["unit"]) == "+12.3\u00a0%"
    assert numbers.wanted("better_than_baseline", "> 5", told["unit"]) == "over 5\u00a0%"
    assert numbers.wanted("mae", "<= 3.5") == "at most 3.5"
    assert numbers.wanted("coverage", ">= 0.85") == "at least 85\u00a0%"
