"""The audit stage, on a graph so small that its answers can be known beforehand."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from modelyard.checks.confusion import confusion
from modelyard.checks.table import table
from modelyard.core.artefacts import ColumnState, Dataset, Manifest, Model, ModelSpec, Report
from modelyard.core.digest import row_digest
from modelyard.core.errors import RowsAlreadySeen, RowsEmpty, SettingInvalid
from modelyard.core.events import Event, Noted, Progress, silent
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.store import Draft
from modelyard.stages.audit import audit, known_limits
from modelyard.stages.report import page
from modelyard.stages.report.page import templates
from modelyard.targets import find

WORDS = ["[PAD]", "[UNK]", "fine", "poor", "film", "play", "odd"]
LABELS = ["neg", "pos"]


def graph(file: Path, right: bool) -> None:
    """Each word has a vote (2,); the output is their mean. Only fine and poor matter."""
    sign = 3.0 if right else -3.0
    votes = np.zeros((len(WORDS), 2), np.float32)
    votes[2], votes[3] = (-sign, sign), (sign, -sign)
    nodes = [
        helper.make_node("Gather", ["votes", "input_ids"], ["each"]),
        helper.make_node("ReduceMean", ["each", "axes"], ["logits"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "votes",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["pieces", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["pieces", 2])],
        [
            numpy_helper.from_array(votes, "votes"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=9), file)


def rows_of(count: int, first: int, noise: float = 0.1) -> list[dict]:
    rng = np.random.default_rng(first)
    rows = []
    for number in range(first, first + count):
        good = bool(rng.integers(2))
        told = good if rng.random() > noise else not good
        noun = ("film", "play")[int(rng.integers(2))]
        text = f"{'fine' if told else 'poor'} {noun} odd {number}"
        rows.append({"_row": number, "text": text, "label": LABELS[good]})
    return rows


def make_dataset(folder: Path, parts: dict[str, list[dict]]) -> Dataset:
    folder.mkdir()
    schema = pa.schema([("_row", pa.int64()), ("text", pa.string()), ("label", pa.string())])
    for part, rows in parts.items():
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{part}.parquet")
    return Dataset(folder)


def make_model(folder: Path, learned_from: list[dict], right: bool = True) -> Model:
    folder.mkdir()
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    graph(folder / "model.onnx", right)
    seen = sorted(row_digest([row["text"]]) for row in learned_from)
    np.save(folder / "seen.npy", np.array(seen, np.uint64))
    text = {"window_tokens": 16, "windows": 1, "pad_id": 0}
    spec = ModelSpec(
        name="films",
        version="1",
        inputs=[ColumnState(column="text", kind="text", state=text)],
        target=ColumnState(column="label", kind="class", state={"labels": LABELS}),
        graph="model.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    return Model(folder)


def make_project(**accept: str) -> Project:
    tables = {
        "name": "films",
        "data": {"rows": "films.csv"},
        "inputs": {"text": "text"},
        "target": {"column": "label"},
        "accept": accept,
    }
    return Project.model_validate(tables)


class Made:
    """A dataset, a model, and audits of them."""

    def __init__(self, folder: Path, right: bool = True):
        self.folder = folder
        self.parts = {
            "train": rows_of(200, 1),
            "validation": rows_of(40, 201),
            "test": rows_of(120, 241),
        }
        self.dataset = make_dataset(folder / "dataset", self.parts)
        learned_from = self.parts["train"] + self.parts["validation"]
        self.model = make_model(folder / "model", learned_from, right)

    def audit(self, events=silent, name="out", **accept: str) -> Report:
        (self.folder / name).mkdir()
        draft = Draft(self.folder / name, self.folder / "kept", {})
        audit.run(make_project(**accept), self.dataset, self.model, draft, events)
        return Report(self.folder / name)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit without limits, which several tests read."""
    made = Made(tmp_path_factory.mktemp("audited"))
    return made, made.audit()


def test_report_says_what_was_measured(made):
    said: list[Event] = []
    report = made.audit(said.append, accuracy=">= 0.8", latency_p95_ms="<= 1000")
    found = report.read_json("report.json")
    assert found["rows"] == {"train": 200, "validation": 40, "test": 120}
    accuracy = next(m for m in found["measures"] if m["name"] == "accuracy")
    rows = made.parts["test"]
    right = sum(row["text"].startswith("fine") == (row["label"] == "pos") for row in rows)
    assert accuracy["value"] == right / 120
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["rows"] == 120
    assert [limit["holds"] for limit in report.verdict] == [True, True]
    assert [event.text for event in said if isinstance(event, Noted)] == found["headline"]
    assert any(isinstance(event, Progress) and event.done == 120 for event in said)


def test_predictions_are_kept_row_by_row_and_the_same_each_time(audited):
    made, first = audited
    second = made.audit(name="again")
    table = pq.read_table(first.folder / "predictions.parquet").to_pylist()
    assert [row["_row"] for row in table] == [row["_row"] for row in made.parts["test"]]
    assert [row["truth"] for row in table] == [row["label"] for row in made.parts["test"]]
    assert set(json.loads(table[0]["scores"])) == set(LABELS)
    files = [each.folder / "predictions.parquet" for each in (first, second)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_failed_limit_is_a_result(made):
    report = made.audit(accuracy=">= 0.999", ece="<= 0.5")
    assert [limit["holds"] for limit in report.verdict] == [False, True]
    assert "1 of 2 limits does not hold" in report.read_json("report.json")["headline"][-1]


def test_baseline_that_is_as_good_comes_first(audited):
    _, report = audited
    found = report.read_json("report.json")
    judged = {each["name"]: each["judgement"] for each in found["baselines"]}
    assert judged["TF-IDF of words with logistic regression"] == "as good"
    assert judged["majority class"] == "better"
    first = "A plain baseline is as good as this model: TF-IDF of words"
    assert found["headline"][0].startswith(first)
    page = (report.folder / "report.html").read_text()
    assert page.index(first) < page.index("on 120 test rows it has not learned from")


def test_model_worse_than_a_baseline_is_said_first(tmp_path):
    found = Made(tmp_path, right=False).audit().read_json("report.json")
    assert found["headline"][0].startswith("This model is worse than a plain baseline: ")
    ahead = next(m for m in found["measures"] if m["name"] == "better_than_baseline")
    assert ahead["high"] < 0


def test_rows_the_model_has_learned_from_are_refused(tmp_path):
    made = Made(tmp_path)
    parts = {**made.parts, "test": made.parts["test"] + made.parts["train"][:2]}
    made.dataset = make_dataset(tmp_path / "mixed", parts)
    with pytest.raises(RowsAlreadySeen, match=r"2 of the 122 rows .* row 1 of the source"):
        made.audit()


def test_empty_test_part_is_refused(tmp_path):
    made = Made(tmp_path)
    made.dataset = make_dataset(tmp_path / "none", {**made.parts, "test": []})
    with pytest.raises(RowsEmpty, match=r"data\.split\.test"):
        made.audit()


def test_unknown_limit_is_told_before_the_work(made):
    with pytest.raises(SettingInvalid, match="did you mean 'accuracy'") as caught:
        made.audit(acuracy=">= 0.9")
    assert all(name in str(caught.value) for name in known_limits(find("class")))
    assert not list((made.folder / "out").iterdir())


def test_every_known_limit_can_be_set(made):
    limits = dict.fromkeys(known_limits(find("class")), ">= -1000")
    report = made.audit(**limits)
    assert [limit["name"] for limit in report.verdict] == list(limits)
    assert all(limit["holds"] for limit in report.verdict)


TRAINING = {
    "backbones": [{"name": "tiny", "licence": "Apache-2.0", "source": "x", "digest": "ab" * 32}],
    "decisions": {
        "method": {"method": "full", "why": "all weights move"},
        "learning_rate": {"learning_rate": 5e-05, "why": "the default of method full"},
        "precision": {"precision": "fp32", "why": "the processor has no bf16"},
    },
    "kept_epoch": 2,
    "steps": 14,
    "epochs": [
        {"epoch": epoch, "rows": 200, "loss": 0.7 / epoch, "validation_loss": 0.6, "accuracy": 0.9}
        for epoch in (1, 2, 3)
    ],
}
COMPRESSION = {
    "target": "int8",
    "choice": "int8",
    "why": "it loses 0.00 points",
    "rungs": [
        {"name": name, "value": 0.9, "low": 0.8, "high": 0.95, "rows": 40, "loss": 0.0}
        | {"agreement": 1.0, "bytes": 22_900_000}
        for name in ("fp32", "int8")
    ],
}


def prepared(folder: Path) -> Dataset:
    """A real Dataset of rows with a hostile label and Chinese texts."""
    from modelyard.stages.prepare import prepare

    rows = [
        f"{'好看' if number % 2 else 'poor'} film {number},{'<b>好评</b>' if number % 2 else 'neg'}"
        for number in range(1, 101)
    ]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    project = make_project()
    project._folder = folder
    (folder / "prepared").mkdir()
    prepare.run(project, Draft(folder / "prepared", folder / "kept", {}), silent)
    return Dataset(folder / "prepared")


def test_page_of_a_whole_run(tmp_path):
    made = Made(tmp_path)
    made.dataset = prepared(tmp_path)
    (made.model.folder / "training.json").write_text(json.dumps(TRAINING))
    (made.model.folder / "compress.json").write_text(json.dumps(COMPRESSION))
    report = made.audit(accuracy=">= 0.1", model_bytes="<= 100000")
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    for said in (
        "100 rows were read from films.csv",
        "the weights of epoch 2 were kept",
        "0.350 on training rows, 0.600 on validation rows",
        "the processor has no bf16",
        "it loses 0.00 points",
        "22.9 MB",
        '<span lang="zh">&lt;b&gt;好评&lt;/b&gt;</span>',
        "at most 0.1 MB",
    ):
        assert said in page
    assert "<b>好评" not in page
    found = report.read_json("report.json")
    assert found["training"] == TRAINING
    assert found["data"]["rows"]["kept"] == 100
    assert found["confusion"]["labels"] == ["<b>好评</b>", "neg"]


def test_the_page_draws_every_rung_and_marks_the_one_that_is_released(tmp_path):
    rungs = {"fp32": 100.0, "int8": 300.0, "layers-3+int8": 900.0}
    measured = {
        name: [
            Measure("rows_per_s", rate, rate * 0.9, rate * 1.1, 640).to_json(),
            Measure("latency_p95_ms", 100 / rate, 0.1, 2.0, 200, False).to_json(),
        ]
        for name, rate in rungs.items()
    }
    record = {
        "threads": 2,
        "rungs": {
            name: {"measures": own, "memory_bytes": 7_000_000, "broken": []}
            for name, own in measured.items()
        },
    }
    record["rungs"]["fp32"]["broken"] = ["latency_p95_ms"]
    told = {**COMPRESSION, "target": "auto", "choice": "layers-3+int8", "network": "layers-3"}
    told["rungs"] = [
        {**COMPRESSION["rungs"][0], "name": name, "loss": 0.01 * number}
        | {"difference": {"value": -0.01 * number, "low": -0.034, "high": 0.012, "unit": "points"}}
        for number, name in enumerate(rungs)
    ]
    made = Made(tmp_path)
    (made.model.folder / "compress.json").write_text(json.dumps(told))
    empty = {"version": "4", "key": "k", "digest": "d", "files": {}, "sizes": {}, "causes": {}}
    made.model = Model(made.model.folder, Manifest(stage="compress", **empty, record=record))
    report = made.audit()
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    [drawing] = re.findall(
        r'<svg[^>]*aria-label="Accuracy and cost of each rung".*?</svg>', page, re.S
    )
    assert re.findall(r">([a-z0-9+-]+)</text>", drawing) == list(rungs)
    places = [float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', drawing)]
    assert places == sorted(places, reverse=True)
    assert drawing.count("fill-orange") == 2 and 'class="chosen"' in page
    for said in ("−1.2 to 3.4", "0.222", "7.0 MB", "those of layers-3", "breaks latency, 95th"):
        assert said in page
    found = report.read_json("report.json")["compression"]["rungs"]
    assert found[2]["cost_of_million"]["value"] == pytest.approx(1e6 / 900 / 3600 * 2 * 0.04, 1e-3)


def test_page_asks_nothing_of_the_network_and_holds_no_script(audited):
    page = (audited[1].folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|<script|<link|<img|@import|url\(|\son\w+=", page)


def test_page_is_well_formed_with_many_classes():
    rng = np.random.default_rng(0)
    labels = [f"class {number}" for number in range(77)]
    truth = [str(label) for label in rng.choice(labels, 900)]
    answers = [
        {"label": label, "score": 0.9}
        for label in np.where(rng.random(900) < 0.8, truth, rng.choice(labels, 900)).tolist()
    ]
    macros = templates().get_template("parts.html.j2").module
    for check, macro in ((table, macros.table), (confusion, macros.confusion)):
        drawn = str(macro(check(truth, answers).details))
        assert "class 76" in drawn
        assert_balanced(drawn)


def test_no_part_of_the_page_takes_the_name_of_another():
    folder = Path(page.__file__).parent
    names = re.findall(r"macro (\w+)\(", (folder / "parts.html.j2").read_text("utf-8"))
    assert len(names) > 10
    assert sorted(set(names)) == sorted(names)


def test_whole_page_is_well_formed(audited):
    assert_balanced((audited[1].folder / "report.html").read_text(encoding="utf-8"))


def assert_balanced(page: str) -> None:
    """Every element that is opened is closed, in order."""
    void = {"meta", "br"}
    open_elements: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                open_elements.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            assert open_elements.pop() == tag

    Reader().feed(page)
    assert open_elements == []


def test_baselines_learn_from_the_training_part_alone(tmp_path):
    made = Made(tmp_path)
    train = [{**row, "label": "pos"} for row in made.parts["train"][:150]]
    parts = {**made.parts, "train": train + made.parts["train"][150:]}
    made.dataset = make_dataset(tmp_path / "skewed", parts)
    found = made.audit().read_json("report.json")
    majority = next(each for each in found["baselines"] if each["name"] == "majority class")
    positive = sum(row["label"] == "pos" for row in made.parts["test"]) / 120
    assert majority["measures"][0]["value"] == positive < 0.5


def test_best_baseline_is_the_one_to_beat(audited):
    found = audited[1].read_json("report.json")
    ahead = next(m for m in found["measures"] if m["name"] == "better_than_baseline")
    smallest = min(each["difference"]["value"] for each in found["baselines"])
    assert ahead["value"] == pytest.approx(100 * smallest)
