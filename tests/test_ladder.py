"""The ladder: which rungs are climbed, which is taken, and what a killed climb goes on from."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from tests.small_models import RATES, TEXTS, made, rate_of
from tests.tiny import pieces_of

from modelyard import targets
from modelyard.cli.main import main
from modelyard.core import rungs as names
from modelyard.core.artefacts import ColumnState, Dataset, Manifest, Model
from modelyard.core.errors import ProjectFileInvalid, SettingInvalid
from modelyard.core.events import Decided, silent
from modelyard.core.measure import Measure
from modelyard.core.project_file import read_project
from modelyard.core.rungs import RungName
from modelyard.models import smaller
from modelyard.models.smaller import Smaller
from modelyard.runtime.graph import Graph
from modelyard.runtime.peak import peak_memory_bytes
from modelyard.stages import ladder, students
from modelyard.stages.checked_rows import CheckedRows
from modelyard.stages.front import front
from modelyard.stages.rungs import RUNGS
from modelyard.stages.speed import Speed, speeds


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ways that teach nothing: `layers-1` is as good as the network, `static` guesses."""
    found: list[str] = []

    def way(name: str) -> Smaller:
        def make(network: Any, teaching: Any) -> Any:
            found.append(name)
            student = copy.deepcopy(network)
            if name == "static":
                student.classifier.weight.data.zero_()
            return student

        return Smaller(name, f"about {name}", make)

    every = [way(name) for name in ("layers-1", "static")]
    monkeypatch.setattr(smaller, "ways", lambda network, used: every)
    return found


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets rungs be as fast as a test says, without measuring them."""

    def set_rates(own: Mapping[str, float] = RATES) -> None:
        late = Measure("latency_p95_ms", 1.0, 1.0, 1.0, 9, False)
        monkeypatch.setattr(ladder, "rates", lambda each, rows: {n: rate_of(n, own) for n in each})
        monkeypatch.setattr(
            ladder,
            "speeds",
            lambda each, rows, memory: {n: Speed((rate_of(n, own), late), 5) for n in each},
        )
        monkeypatch.setattr(ladder, "peak_memory_bytes", lambda graph, pieces: 5)

    return set_rates


def test_auto_goes_on_where_it_was_killed_and_its_speed_is_no_part_of_the_result(
    tmp_path: Path,
    model: Model,
    dataset: Dataset,
    taught: list[str],
    fixed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoModelForSequenceClassification

    fixed()
    answers, asked = CheckedRows.answers, []

    def killed(self: CheckedRows, run: Any, state: Any) -> Any:
        asked.append(state)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return answers(self, run, state)

    monkeypatch.setattr(CheckedRows, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, model, dataset, target="auto", max_loss=0.1)
    assert not list((tmp_path / "out").iterdir())
    result = made(tmp_path, model, dataset, target="auto", max_loss=0.1)
    assert taught == ["layers-1", "static"]
    assert len(asked) == 6 + 4  # the network, the rung that was cut off, and its other forms
    told = result.told
    assert result.rungs == [
        *("fp32", "int8", "int8-calibrated", "layers-1+int8"),
        *("static+int8", "static+int8-calibrated", "static"),
    ]
    assert told["choice"] == "layers-1+int8" and told["network"] == "layers-1"
    plain, _, calibrated, student, static, *_ = told["rungs"]
    assert calibrated["loss"] < 0.2 and calibrated["bytes"] < plain["bytes"]
    assert student["about"] == "about layers-1" and static["loss"] > 0.1
    assert student["difference"]["low"] <= -student["loss"] <= student["difference"]["high"]
    assert student["bytes"] == (result.folder / "graph.onnx").stat().st_size < plain["bytes"]
    [decided] = [event for event in result.events if isinstance(event, Decided)]
    assert decided.choice == "layers-1+int8" and "13.0 × as many as fp32" in decided.why
    assert AutoModelForSequenceClassification.from_pretrained(result.folder).config.id2label
    assert not (result.folder / "model.safetensors").samefile(model.folder / "model.safetensors")

    shutil.rmtree(result.folder)
    fixed(RATES | {"fp32": 90.0, "int8": 310.0})
    again = made(tmp_path, model, dataset, target="auto", max_loss=0.1)
    assert again.told == told
    assert again.record["rungs"]["fp32"]["measures"][0]["value"] == 90.0


def test_a_network_that_transformers_cannot_hold_leaves_the_trained_one_beside_its_graph(
    tmp_path: Path,
    model: Model,
    dataset: Dataset,
    taught: list[str],
    fixed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed()
    monkeypatch.setattr(smaller, "in_hugging_face_form", lambda network: False)
    result = made(tmp_path, model, dataset, target="layers-1+int8", max_loss=0.1)
    assert result.told["network"] == "as trained"
    assert (result.folder / "model.safetensors").samefile(model.folder / "model.safetensors")
    assert any("transformers cannot hold" in str(event) for event in result.events)


def test_what_a_target_settles_is_settled_anew_for_a_smaller_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target: Any = targets.find("number")
    truths = [float(n) for n in range(40)]
    answer = ColumnState(column="price", kind="number", state=target.learn(truths))
    model: Any = SimpleNamespace(spec=SimpleNamespace(target=answer))
    outputs = np.zeros((40, 3), np.float32)
    own: Any = students.Students(cast(Any, None), cast(Any, None), model, tmp_path, silent)
    own.__dict__["_validation"] = (pieces_of([[1]] * 40), truths)
    monkeypatch.setattr(students.Students, "plain_graph", lambda self, names: tmp_path)
    graph = SimpleNamespace(outputs=lambda pieces: outputs)
    monkeypatch.setattr(students, "Graph", lambda file: graph)
    assert own.state(()) == answer.state
    assert own.state(("layers-1",)) == target.settle(outputs, truths, answer.state)[0]
    assert own.state(("layers-1",))["margin"] != answer.state["margin"]


def test_layers_are_left_out_for_good(tmp_path: Path, model: Model, dataset: Dataset) -> None:
    options = {"target": "layers-1+int8", "max_loss": 0.99, "minutes": 0.01}
    result = made(tmp_path, model, dataset, **options)
    config = json.loads((result.folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    products = [
        sum(node.op_type == "MatMulIntegerToFloat" for node in onnx.load(file).graph.node)
        for file in (result.folder / "graph.onnx", tmp_path / "kept" / "rungs" / "int8.onnx")
    ]
    assert products[0] < products[1]


def test_a_way_that_a_network_has_not_is_refused_with_those_it_has(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    with pytest.raises(SettingInvalid, match=r"'layers-9', and this model's network .* layers-1"):
        made(tmp_path, model, dataset, target="layers-9+int8")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("layer-3+int8", "there is no rung 'layer-3'; did you mean 'layers-3'?"),
        ("int4", "there is no rung 'int4'; did you mean 'int8'?"),
        ("int8+layers-3", "the form of the graph comes last"),
        ("layers-3+layers-2", "takes one twice"),
        ("xyz", "known are auto, and layers-N, blocks-half"),
    ],
)
def test_an_unknown_rung_is_refused_with_the_nearest(
    tmp_path: Path, target: str, said: str
) -> None:
    file = tmp_path / "modelyard.toml"
    file.write_text(
        'name = "x"\n[data]\nrows = "a.csv"\n[inputs]\ntext = "text"\n[target]\ncolumn = "y"\n'
        f'[compress]\ntarget = "{target}"\n'
    )
    with pytest.raises(ProjectFileInvalid, match="line 9") as caught:
        read_project(file)
    assert said in str(caught.value)


def test_every_form_and_every_way_has_a_name_that_a_user_can_write(model: Model) -> None:
    assert tuple(RUNGS) == names.GRAPHS
    network = students.networks.load(model.spec.columns, model.folder, 2)
    found = [each.name for each in smaller.ways(network, {"": np.array([1, 2])})]
    assert {names.pattern_of(each) for each in found} <= set(names.NETWORKS)
    assert [names.problem(f"{each}+int8") for each in found] == [None] * len(found)
    assert RungName(("layers-2",), "int8").with_way("static") == RungName(("static",), "int8")


def test_bf16_is_half_the_size_and_computes_the_same(
    tmp_path: Path, model: Model, dataset: Dataset, fixed: Callable[..., None]
) -> None:
    fixed()
    made(tmp_path, model, dataset, target="bf16", max_loss=0.1)
    plain, half = (tmp_path / "kept" / "rungs" / f"{name}.onnx" for name in ("fp32", "bf16"))
    assert half.stat().st_size < 0.75 * plain.stat().st_size  # much of a tiny graph is no weights
    rows = CheckedRows.of(dataset, model).encoded
    np.testing.assert_allclose(Graph(half).outputs(rows), Graph(plain).outputs(rows), atol=0.2)


def test_speed_and_memory_are_those_of_what_serves(
    tmp_path: Path, model: Model, dataset: Dataset
) -> None:
    found = made(tmp_path, model, dataset, target="fp32").record["rungs"]["fp32"]
    told = {each["name"]: each for each in found["measures"]}
    assert list(told) == ["rows_per_s", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms"]
    assert told["rows_per_s"]["low"] <= told["rows_per_s"]["value"] <= told["rows_per_s"]["high"]
    assert found["memory_bytes"] is None or found["memory_bytes"] > 20_000_000
    assert peak_memory_bytes(tmp_path / "none.onnx", CheckedRows.of(dataset, model).encoded) is None


def test_the_slow_one_of_two_is_the_slower_one() -> None:
    from time import sleep

    slow, fast = (
        SimpleNamespace(predict=lambda rows, s=s: sleep(s * len(rows))) for s in (2e-4, 5e-5)
    )
    both: Any = {"slow": slow, "fast": fast}
    found = speeds(both, [{"text": text} for text in TEXTS], {"slow": 7})
    assert found["fast"].rows_per_s > 2 * found["slow"].rows_per_s
    assert (found["slow"].memory_bytes, found["fast"].memory_bytes) == (7, None)


def manifest_of(record: dict[str, Any]) -> Manifest:
    empty: dict[str, Any] = {"files": {}, "sizes": {}, "causes": {}}
    return Manifest(stage="compress", version="4", key="k", digest="d", record=record, **empty)


def test_a_price_makes_a_cost_of_each_rate() -> None:
    rate = Measure("rows_per_s", 100.0, 50.0, 200.0, 640).to_json()
    record = {
        "threads": 2,
        "rungs": {"fp32": {"measures": [rate], "memory_bytes": 9, "broken": []}},
    }
    told = {"choice": "fp32", "rungs": [{"name": "fp32"}, {"name": "int8"}]}
    plain, untold = front(told, manifest_of(record), core_hour=0.5)["rungs"]
    assert plain["cost_of_million"] == pytest.approx(
        {"value": 2.777778, "low": 1.388889, "high": 5.555556}
    )
    assert untold["cost_of_million"] is None and untold["rows_per_s"] is None
    assert front(told, None, 0.5)["rungs"][0]["cost_of_million"] is None


@pytest.fixture
def project(tmp_path: Path, tiny_backbone: Path) -> Path:
    rows = "".join(f"{text},{'good' if n % 2 else 'bad'}\n" for n, text in enumerate(TEXTS * 2))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    (tmp_path / "modelyard.toml").write_text(
        f'name = "films"\n[data]\nrows = "rows.csv"\n[inputs]\ntext = "text"\n[target]\n'
        f'column = "label"\n[backbone]\ntext = "{tiny_backbone}"\n[train]\nepochs = 1\n'
        'precision = "fp32"\n[compress]\nmax_loss = 0.5\n'
    )
    return tmp_path


def test_compress_runs_so_far_and_shows_its_rungs(
    project: Path, fixed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    fixed()
    assert main(["compress", str(project), "--show"]) == 2
    assert "has no model that was made small yet; make one with" in capsys.readouterr().err
    assert main(["compress", str(project)]) == 0
    table = capsys.readouterr().out
    assert "films: int8, because int8" in table
    assert [line.split()[:2] for line in table.splitlines()[2:4]][1] == ["*", "int8"]
    assert main(["compress", str(project), "--show"]) == 0
    assert capsys.readouterr().out == table
    assert main(["compress", str(project), "--show", "--json", "--set", "train.epochs=2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [rung["name"] for rung in told["rungs"]] == ["fp32", "int8"]
    assert not told["stands"] and told["rungs"][1]["rows_per_s"]["value"] == RATES["int8"]
    assert not (project / ".modelyard" / "made" / "audit").exists()


def test_a_plan_counts_what_auto_takes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minutes = {}
    for target in ("int8", "layers-1+int8", "auto"):
        setting = ["--set", f"compress.target={target}", "--set", "compress.minutes=2"]
        assert main(["plan", str(project), "--json", *setting]) == 0
        stages = {each["stage"]: each for each in json.loads(capsys.readouterr().out)["stages"]}
        minutes[target] = stages["compress"]["minutes"]
    assert minutes["int8"] + 2 < minutes["layers-1+int8"]
    assert minutes["auto"] > 6 * 2


def test_unlabelled_rows_teach_but_for_those_that_are_held(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"{text} and {text}" for text in TEXTS[:6]]
    texts = [*more, "", *(text.upper() + " " for text in TEXTS)]
    (project / "more.jsonl").write_text(
        "\n".join(json.dumps({"other": 1, "text": text}) for text in texts)
    )
    target = ["--set", "compress.target=layers-1+int8", "--set", "compress.minutes=0.02"]
    asked = [*target, "--set", "compress.unlabelled=more.jsonl"]
    assert main(["compress", str(project), *target]) == 0
    assert main(["compress", str(project), *asked]) == 0
    made = (project / ".modelyard" / "objects").glob
    [train], [held] = made("prepare-*/train.parquet"), made("prepare-*/test.parquet")
    kept = len(more) + pq.read_table(train).num_rows
    said = f"{kept} unlabelled rows of more.jsonl teach smaller networks too; {len(texts) - kept} "
    assert said in capsys.readouterr().err
    seen = {file.parent.name: np.load(file) for file in made("*/seen.npy")}
    [trained] = (len(each) for name, each in seen.items() if name.startswith("train"))
    assert sorted(len(each) - trained for each in seen.values()) == [0, 0, kept]
    graphs = {file.read_bytes() for file in made("compress-*/graph.onnx")}
    assert len(graphs) == 2  # another lesson, another network
    assert pq.read_table(held).num_rows


@pytest.mark.parametrize(
    ("written", "target", "said"),
    [
        (None, "auto", "There is no file"),
        ('{"text": "good"}', "int8", "teaches no smaller network that could learn from it"),
        ('{"words": "good"}', "auto", "has no column 'text'"),
        ("", "auto", "is empty"),
    ],
)
def test_unlabelled_rows_that_cannot_teach_are_refused_before_anything_runs(
    project: Path, written: str | None, target: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if written is not None:
        (project / "more.jsonl").write_text(written)
    settings = [f"compress.target={target}", "compress.unlabelled=more.jsonl"]
    words = [word for each in settings for word in ("--set", each)]
    assert main(["compress", str(project), *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (project / ".modelyard").exists()


def test_unlabelled_rows_of_which_none_can_teach_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "more.jsonl").write_text('{"text": " "}')
    settings = ["compress.target=layers-1+int8", "compress.unlabelled=more.jsonl"]
    words = [word for each in settings for word in ("--set", each)]
    assert main(["compress", str(project), *words]) == 2
    assert "has no row that could teach" in capsys.readouterr().err
