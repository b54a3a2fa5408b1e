"""Beside the peers: what the bench makes of its rounds. No peer is started here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench.ceiling import operations
from bench.peers import environments
from bench.peers.__main__ import _chosen
from bench.peers.catalogue import IN_PROCESS, OURS, PEERS, SERVED
from bench.peers.report import Measured, figures, page
from bench.peers.rounds import InProcess, Job, OverHttp, Round, half_load

from modelyard.checks.difference import difference

JOB = Job("films", "Films", Path("release"), ["good"], Path("texts.json"), ["yes"], 24.0, 1e9)


def _over_http(rows_per_s: float, p99_ms: float, *at: str) -> OverHttp:
    return OverHttp(
        first_answer_s=1.0,
        rows_per_s=rows_per_s,
        p50_ms=10.0,
        p95_ms=20.0,
        p99_ms=30.0,
        one_row_ms=5.0,
        offered=dict.fromkeys(at, half_load(80.0)),
        offered_p99_ms=dict.fromkeys(at, p99_ms),
        unanswered=0,
    )


def _round(factor: float = 1.0) -> Round:
    """Ours does 900 in process and 450 over HTTP; peers do 100 and 80."""
    peers = [name for name in SERVED if name != OURS]
    return Round(
        ceiling_texts_per_s=1000.0,
        in_process={
            OURS: InProcess(900.0 * factor, 2.0),
            "pipeline": InProcess(100.0, 12.0),
            "setfit": InProcess(150.0, 8.0),
        },
        over_http={
            **{name: _over_http(80.0, 400.0, name) for name in peers},
            OURS: replace(
                _over_http(450.0 * factor, 20.0, *peers), together_rows_per_s=810.0 * factor
            ),
        },
    )


def _measured(*rounds: Round) -> Measured:
    right, wrong = {"label": "yes"}, {"label": "no"}
    truth = ["yes"] * 100
    lost = difference(truth, [right] * 90 + [wrong] * 10, [right] * 88 + [wrong] * 12)
    return Measured(JOB, lost, rounds, 5.0)


def test_figures_are_ratios_of_each_round_and_their_median() -> None:
    found = {each.name: each for each in figures(_measured(_round(), _round(2), _round(1.1)))}
    over = found["Films: engine over pipeline(batch_size=32)"]
    assert (over.value, over.low, over.high) == pytest.approx((9.9, 9.0, 18.0))
    assert over.holds
    ceiling = found["Films: engine over the ceiling"]
    assert ceiling.value == pytest.approx(0.99) and ceiling.holds
    served = found["Films: HTTP with 32 clients over the engine"]
    assert served.value == pytest.approx(0.5) and not served.holds
    together = found["Films: HTTP with 32 clients over the engine, 8 rows a request"]
    assert together.value == pytest.approx(0.9) and together.holds
    one = found["Films: one row at a time, p50 through HTTP over the engine's"]
    assert one.value == pytest.approx(3.0) and not one.holds
    lost = found["Films: accuracy lost by int8"]
    assert lost.value == pytest.approx(2.0) and not lost.holds


@pytest.mark.parametrize("name", ["litserve", "bentoml", "mlflow"])
def test_each_peer_has_a_rate_and_a_wait_to_beat(name: str) -> None:
    found = [each for each in figures(_measured(_round())) if SERVED[name].title in each.name]
    [rate, wait] = found
    assert rate.value == pytest.approx(450 / 80) and rate.holds
    assert wait.value == pytest.approx(20.0) and wait.holds
    assert "40 rows/s" in wait.measured_on
    slow = _round()
    slow.over_http[OURS] = replace(slow.over_http[OURS], offered_p99_ms={name: 400.0})
    again = [each for each in _over(slow, name) if "p99" in each.name]
    assert not again[0].holds  # as long is not lower


def _over(found: Round, name: str) -> list[object]:
    only = {who: each for who, each in found.over_http.items() if who in (name, OURS)}
    return figures(_measured(replace(found, over_http=only)))


def test_a_peer_that_was_not_measured_has_no_figure() -> None:
    only = replace(_round(), over_http={OURS: _over_http(450.0, 20.0, OURS)}, in_process={
        OURS: InProcess(900.0, 2.0)
    })  # fmt: skip
    names = [each.name for each in figures(_measured(only))]
    assert len(names) == 4 and not any("pipeline" in name for name in names)
    assert SERVED["mlflow"].title not in page([_measured(only)], [], "make bench-peers")


def test_the_page_has_every_peer_with_its_setting_and_every_miss() -> None:
    measured = _measured(_round())
    told = page([measured], figures(measured), "make bench-peers")
    for each in (*SERVED.values(), *IN_PROCESS.values()):
        assert each.setting and f"{each.setting}." in told
        assert f"| {each.title} |" in told
    assert "| **no** |" in told
    rows = [line for line in told.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows}
    assert widths == {6, 4, 12}


def test_a_text_costs_its_layers_and_its_attention_and_one_token_of_the_last(
    tmp_path: Path,
) -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 4, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    layer, attention, folded = 4 * 16 + 2 * 32, 2 * 3 * 4, 2 * 2 * 4
    assert operations(tmp_path, [3]) == 2 * (3 * (layer + attention) + 3 * folded + layer)
    assert operations(tmp_path, [3, 3]) == 2 * operations(tmp_path, [3])


def test_peers_are_chosen_by_name() -> None:
    assert _chosen("", PEERS) == PEERS
    assert _chosen("mlflow,setfit", PEERS) == ["mlflow", "setfit"]
    with pytest.raises(SystemExit, match="No triton; there are: fastapi"):
        _chosen("triton", PEERS)


def test_an_environment_is_made_once_for_its_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(environments, "PLACE", tmp_path / "peers")
    monkeypatch.setattr(environments, "PINS", tmp_path)
    monkeypatch.setattr(environments, "_make", lambda name: (_folder(name), made.append(name)))

    def _folder(name: str) -> None:
        (tmp_path / "peers" / name).mkdir(parents=True)

    (tmp_path / "base.txt").write_text("torch==1\n")
    (tmp_path / "litserve.txt").write_text("litserve==1\n")
    environments.build("litserve")
    environments.build("litserve")
    assert made == ["base", "litserve"]
    (tmp_path / "litserve.txt").write_text("litserve==2\n")
    environments.build("litserve")
    assert made == ["base", "litserve", "litserve"]


@pytest.mark.parametrize("name", ["base", *PEERS])
def test_every_peer_has_pins_that_name_one_version_each(name: str) -> None:
    lines = (environments.PINS / f"{name}.txt").read_text().split()
    assert lines and all(line.count("==") == 1 for line in lines)
