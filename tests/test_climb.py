"""The climb: which rungs are tried and which is taken, where all figures are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.small_models import RATES, rate_of

from modelyard.checks.difference import Difference
from modelyard.core.measure import Measure
from modelyard.core.rungs import RungName
from modelyard.stages.choice import Choice, cheapest, named
from modelyard.stages.ladder import Ladder, broken, climb, measures_of
from modelyard.stages.rungs import Rung
from modelyard.stages.speed import Speed


@dataclass
class Climbed:
    """A ladder of which all figures are given: what is lost by rung, and by rung how fast it is."""

    losses: Mapping[str, float]
    accept: dict[str, str] = field(default_factory=dict)
    rates_of: Mapping[str, float] = field(default_factory=lambda: RATES)
    late_ms: float = 1.0
    able: tuple[str, ...] = ("vocabulary", "low-rank-half", "layers-3", "layers-2", "static")

    @property
    def project(self) -> Any:
        return SimpleNamespace(accept=self.accept, compress=SimpleNamespace(max_loss=0.01))

    @property
    def students(self) -> Any:
        return SimpleNamespace(ways=lambda before=(): dict.fromkeys(self.able))

    def rung(self, name: RungName) -> Rung:
        loss = self.losses.get(str(name), 0.0)
        accuracy = Measure("accuracy", 0.9 - loss, 0.8, 1.0, 500)
        paired = Difference(-loss, -loss - 0.02, -loss + 0.02, 500, 0, 0)
        size = 100 - len(str(name))
        return Rung(str(name), size, accuracy, loss, 1.0, 0.0, paired, (accuracy,))

    def rates(self, *each: RungName) -> list[float]:
        return [rate_of(str(one), self.rates_of).value for one in each]

    def choice(self) -> tuple[list[str], Choice]:
        rungs = [self.rung(name) for name in climb(cast(Ladder, self))]
        late = {each.name: self.late_ms if each.name != "fp32" else 1.0 for each in rungs}
        fast = {
            name: Speed(
                (rate_of(name, self.rates_of), Measure("latency_p95_ms", ms, ms, ms, 9, False))
            )
            for name, ms in late.items()
        }
        lost = {
            each.name: broken(measures_of(each, fast[each.name]), self.accept) for each in rungs
        }
        return [each.name for each in rungs], cheapest(rungs, fast, lost, 0.01)


def lossy(way: str, loss: float = 0.1) -> dict[str, float]:
    """A way that loses as much, too much if nothing is said, in every form."""
    return {f"{way}{form}": loss for form in ("", "+int8", "+int8-calibrated")}


def test_a_climb_builds_on_the_best_so_far() -> None:
    names, choice = Climbed(lossy("static")).choice()
    assert names == [
        *("fp32", "int8", "int8-calibrated", "layers-3+int8", "layers-2+int8"),
        *("static+int8", "static+int8-calibrated", "static", "layers-2+low-rank-half+int8"),
    ]
    assert choice.name == "layers-2+low-rank-half+int8"
    assert choice.why == (
        "of 9 rungs it is the cheapest on this machine that keeps [accept] and loses at most "
        "compress.max_loss = 0.01: layers-2+low-rank-half+int8 loses no accuracy on 500 "
        "validation rows and is 1.3 × smaller; other rows could show a loss of up to 2.0 points "
        "(95 % interval)"
    )


def test_a_way_that_loses_too_much_or_is_no_quicker_is_not_built_upon() -> None:
    names, _ = Climbed(lossy("layers-3") | {"int8": 0.01}).choice()
    assert "layers-2+int8" not in names and "static+low-rank-half+int8" in names
    names, _ = Climbed({}, rates_of={**RATES, "static+int8": 290.0}).choice()
    assert "static+low-rank-half+int8" not in names


def test_a_network_that_loses_too_much_in_the_quickest_form_may_not_in_another() -> None:
    losses = {"layers-3+int8": 0.05, **lossy("static")}
    names, _ = Climbed(losses, able=("layers-3", "layers-2", "static")).choice()
    assert names[3:6] == ["layers-3+int8", "layers-3+int8-calibrated", "layers-2+int8"]


def test_where_int8_loses_too_much_smaller_networks_stay_fp32() -> None:
    names, choice = Climbed({"int8": 0.02, "int8-calibrated": 0.02, "static": 0.2}).choice()
    assert names[3:] == ["layers-3", "layers-2", "static", "layers-2+low-rank-half"]
    assert choice.name == "layers-2+low-rank-half"


def test_the_plainest_of_those_as_cheap_is_taken() -> None:
    rates = {"fp32": 300.0, "int8": 302.0, "layers-3": 299.0, "layers-3+int8": 303.0}
    rates["int8-calibrated"] = 300.0
    assert Climbed({}, rates_of=rates, able=("layers-3",)).choice()[1].name == "fp32"


@pytest.mark.parametrize(
    ("accept", "choice"),
    [
        ({"latency_p95_ms": "<= 5"}, "fp32"),
        ({"latency_p95_ms": "<= 0.5"}, "layers-3+int8"),
        ({"accuracy": ">= 0.895"}, "int8"),
        ({"accuracy": ">= 0.95"}, "layers-3+int8"),
        ({"model_bytes": "<= 95"}, "layers-3+int8"),
        ({"rows_per_s": "<= 200"}, "fp32"),
    ],
)
def test_limits_forbid_a_rung_that_breaks_them_unless_all_do(
    accept: dict[str, str], choice: str
) -> None:
    losses = lossy("layers-3", 0.008)
    _, found = Climbed(losses, accept, late_ms=7.0, able=("layers-3",)).choice()
    assert found.name == choice
    all_break = accept in ({"latency_p95_ms": "<= 0.5"}, {"accuracy": ">= 0.95"})
    assert ("as none keeps all" in found.why) == all_break


def test_what_saves_size_alone_is_tried_where_size_is_limited() -> None:
    assert not {"bf16", "vocabulary"} & set("+".join(Climbed({}).choice()[0]).split("+"))
    names, _ = Climbed({}, {"model_bytes": "<= 1"}).choice()
    assert "bf16" in names and any("vocabulary" in name for name in names)


def test_no_more_than_six_smaller_networks_are_made() -> None:
    able = tuple(f"layers-{count}" for count in range(20, 1, -1))
    rates = {f"layers-{count}+int8": 1000.0 - 30 * count for count in range(21)}
    names, _ = Climbed({}, rates_of=RATES | rates, able=able).choice()
    assert len(names) == 3 + 6


def test_a_named_rung_that_loses_too_much_gives_way_to_the_one_below() -> None:
    below = RungName.read("static+int8").below()
    rungs = [Climbed({"static+int8": 0.2}).rung(name) for name in below]
    choice = named(rungs, "static+int8", 0.01)
    assert choice.name == "int8"
    assert "more than compress.max_loss = 0.01 allows; int8 loses no accuracy" in choice.why
