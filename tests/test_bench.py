"""The command bench: a release measured in process and over HTTP."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.service_host import write_release

from modelyard.cli.main import main
from modelyard.core.measure import cost_of_million
from modelyard.runtime import seal
from modelyard.runtime.peak import memory_of
from modelyard.service.load import Load

PROJECT = """
name = "tiny"
data = { rows = "rows.csv" }
inputs = { text = "text" }
target = { column = "label", kind = "class" }
cost = { core_hour = 0.5 }
serve = { max_rows = 4, max_characters = 40 }
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_release(tmp_path_factory.mktemp("bench") / "tiny")
    (folder / "project.toml").write_text(PROJECT, encoding="utf-8")
    seal.sign(folder)
    return folder


def _rows(folder: Path, *texts: str) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return file


def test_each_load_is_told_with_what_it_met(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _rows(tmp_path, "good film", " ", "bad " * 20)  # none, and longer than a request may be
    words = ["bench", str(release), str(rows), "--clients", "1,3", "--seconds", "0.3"]
    assert main([*words, "--json", "--plot", str(tmp_path / "plot.svg")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["core_hour"]) == (2, 0.5)
    assert found["engine_rows_per_s"] > 0
    cost = cost_of_million(found["engine_rows_per_s"], found["cores"], 0.5)
    assert found["cost_of_million"] == pytest.approx(cost, rel=1e-2)
    assert [load["clients"] for load in found["loads"]] == [1, 3]
    for load in found["loads"]:
        assert load["answers"] > 0 and load["refused"] > 0
        assert 0 < load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"]
        assert load["rows_per_s"] == pytest.approx(load["answers"] / 0.3, abs=0.1)
    assert found["peak_memory_bytes"] is None or found["peak_memory_bytes"] > 10_000_000
    drawn = ElementTree.fromstring((tmp_path / "plot.svg").read_text(encoding="utf-8"))
    assert len(drawn.findall("{*}circle")) == 6
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "in process, many rows at once" in told and "p99 ms" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--clients", "0"], "--clients takes numbers from 1 to 1024"),
        (["--clients", "many"], "got 'many'"),
        (["--seconds", "0"], "--seconds takes more than 0"),
    ],
)
def test_loads_that_cannot_be_are_refused(
    release: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert main(["bench", str(release), str(_rows(tmp_path, "good")), *more]) == 2
    assert said in capsys.readouterr().err


def test_rows_that_cannot_be_answered_are_refused(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(release), str(_rows(tmp_path, " ", ""))]) == 2
    assert "can be answered" in capsys.readouterr().err


def test_a_load_without_answers_has_a_rate_of_nothing() -> None:
    assert Load(clients=1, seconds=2.0).rows_per_s == 0
    assert memory_of(0) is None
