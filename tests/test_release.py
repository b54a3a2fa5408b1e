"""The release stage: what its folder holds, what it leaves out, and what it refuses."""

import json
import shutil
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.test_audit import WORDS, graph
from tokenizers import Tokenizer, models, pre_tokenizers

from modelyard.checks.latency import latency
from modelyard.core.artefacts import ColumnState, Dataset, Model, ModelSpec
from modelyard.core.digest import of_file
from modelyard.core.errors import RequirementFailed
from modelyard.core.events import Noted, StageSkipped, Warned, silent
from modelyard.core.flow import run
from modelyard.core.licences import allows, licence_problem
from modelyard.core.project import Project
from modelyard.core.project_file import read_project
from modelyard.core.stages import stage
from modelyard.core.store import Store
from modelyard.runtime import seal, signing_key
from modelyard.stages.audit import audit
from modelyard.stages.papers.facts import public_report, shareable, without_secrets
from modelyard.stages.prepare import prepare
from modelyard.stages.release import release

LABELS = ["差评", "好评"]
SECRET = "只有我家才有的一句影评"
PROJECT = """
name = "films"
[data]
rows = "影评.csv"
[inputs]
"影评" = { kind = "text", windows = 1 }
[target]
column = "情感"
[release]
version = "2026-11"
license = "apache-2.0"
rows_license = "cc-by-4.0"
[accept]
accuracy = ">= 0.6"
"""
BACKBONE = {
    "name": "tiny",
    "licence": "apache-2.0",
    "source": "folder",
    "digest": "ab" * 32,
    "languages": ["zh"],
}

TRAINING = {"decisions": {}, "kept_epoch": 1, "steps": 7, "epochs": []}


def write_rows(file: Path, count: int = 400) -> None:
    rng = np.random.default_rng(1)
    lines = ["影评,情感"]
    for number in range(count):
        good = bool(rng.integers(2))
        told = good if rng.random() > 0.1 else not good
        again = SECRET if number % 20 else f"{SECRET}{SECRET}，真的"
        text = f"{'fine' if told else 'poor'} film {again} {number}"
        lines.append(f"{text},{LABELS[good]}")
    file.write_text("\n".join(lines), encoding="utf-8")


def write_model(folder: Path, backbone: dict) -> None:
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=dict(enumerate(LABELS)),
        label2id={label: n for n, label in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    graph(folder / "graph.onnx", right=True)
    np.save(folder / "seen.npy", np.array([], np.uint64))
    spec = ModelSpec(
        name="films",
        version="1",
        inputs=[
            ColumnState(
                column="影评", kind="text", state={"window_tokens": 16, "windows": 1, "pad_id": 0}
            )
        ],
        target=ColumnState(column="情感", kind="class", state={"labels": LABELS}),
        graph="graph.onnx",
    )
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "training.json").write_text(json.dumps({"backbones": [backbone], **TRAINING}))
    (folder / "compress.json").write_text("{}")


class Made:
    """A project whose rows are prepared, and whose model is made beforehand."""

    def __init__(self, root: Path):
        self.root = root
        write_rows(root / "影评.csv")
        write_model(root / "model", BACKBONE)
        (root / "modelyard.toml").write_text(PROJECT, encoding="utf-8")
        self.folder = self.release().folder

    def stages(self, backbone: dict):
        cause = {"backbone": backbone["licence"]}

        @stage("compress", version="3", reads=(), gives=Model, causes=lambda _: cause)
        def compress(project, dataset: Dataset, draft, events):
            shutil.copytree(self.root / "model", draft.out, dirs_exist_ok=True)
            told = json.dumps({"backbones": [backbone], **TRAINING})
            (draft.out / "training.json").write_text(told)

        return [prepare, compress, audit, release]

    def project(self, **terms) -> Project:
        settings = [f'release.{name}="{value}"' for name, value in terms.items()]
        return read_project(self.root, settings)

    def release(self, events=silent, backbone=BACKBONE, **terms):
        project = self.project(**terms)
        signing_key.own_key()  # as every door does before a run
        return run(project, self.stages(backbone), Store(self.root / "store"), events)["release"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_CONFIG", str(root / "keys"))
        patch.setattr("modelyard.stages.audit.latency", partial(latency, budget_s=0.05))
        yield Made(root)


@pytest.fixture
def text_of(made):
    return lambda name: (made.folder / name).read_text(encoding="utf-8")


def test_the_folder_has_everything_and_nothing_else(made):
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "README.md",
        "bom.cdx.json",
        "compress.json",
        "config.json",
        "graph.onnx",
        "lineage.json",
        "model.json",
        "model.safetensors",
        "model.sig",
        "project.toml",
        "report.html",
        "report.json",
        "signing-key.pub.pem",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]


def test_it_verifies_and_one_flipped_byte_in_any_file_does_not(made, tmp_path):
    copy = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    assert seal.verify(copy).files == 15
    rng = np.random.default_rng(3)
    for path in sorted(copy.iterdir()):
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with pytest.raises((seal.ReleaseChanged, seal.ReleaseUntrusted), match=r"\.|key"):
            seal.verify(copy)
        path.write_bytes(whole)
    seal.verify(copy)


def test_no_raw_row_leaves_the_house(made):
    for path in made.folder.iterdir():
        content = path.read_bytes()
        assert SECRET.encode() not in content, path.name
        assert json.dumps(SECRET)[1:-1].encode() not in content, path.name
    data = json.loads((made.folder / "report.json").read_text("utf-8"))["data"]
    assert data["near_duplicates"]["rows"] > 0


def test_what_opens_a_database_stays_home(made):
    source = "postgresql://ann:hunter2@db.example/films"
    data = Project.model_validate(made.project().model_dump()).data.model_copy(
        update={"rows": source}
    )
    project = made.project().model_copy(update={"data": data})
    told = Model(made.folder).read_json("report.json")
    told["data"]["source"]["name"] = source
    public = [shareable(project), public_report(told, Model(made.folder).spec)]
    assert "hunter2" not in json.dumps(public)
    assert "postgresql://db.example/films" in json.dumps(public)


def test_transformers_loads_it_as_it_is(made):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(made.folder)
    tokens = AutoTokenizer.from_pretrained(made.folder)("fine film", return_tensors="pt")
    assert model(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).logits.shape == (1, 2)
    assert model.config.id2label == dict(enumerate(LABELS))


def test_the_runtime_predicts_with_it(made):
    from modelyard import inputs, targets
    from modelyard.runtime.runtime import Runtime

    runtime = Runtime.open(made.folder, inputs.find, targets.find)
    assert [a["label"] for a in runtime.predict([{"影评": "fine film"}, {"影评": "poor"}])] == [
        "好评",
        "差评",
    ]
    assert (runtime.spec.name, runtime.spec.version) == ("films", "2026-11")


def test_the_project_file_reads_as_the_resolved_project(made):
    project = read_project(made.folder / "project.toml")
    assert project.model_dump(mode="json") == made.project().model_dump(mode="json")
    assert (
        tomllib.loads((made.folder / "project.toml").read_text("utf-8"))["train"]["batch_rows"]
        == 32
    )


def test_the_card_has_the_measured_results_in_its_front_matter(made, text_of):
    _, front, text = text_of("README.md").split("---\n", 2)
    matter = yaml.safe_load(front)
    report = json.loads(text_of("report.json"))
    accuracy = next(m for m in report["measures"] if m["name"] == "accuracy")
    assert matter["license"] == "apache-2.0"
    assert matter["language"] == ["zh"]
    assert matter["library_name"] == "transformers"
    assert matter["pipeline_tag"] == "text-classification"
    assert "base_model" not in matter  # a folder is no name on the Hub
    [index] = matter["model-index"]
    [result] = index["results"]
    assert index["name"] == "films"
    assert result["task"]["type"] == "text-classification"
    assert result["dataset"]["split"] == "test"
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values["Accuracy"] == pytest.approx(accuracy["value"], abs=1e-6)
    assert not any("atency" in name for name in values)
    assert set(matter["metrics"]) == {m["type"] for m in result["metrics"]}
    for heading in ("Intended use", "Evaluation", "Calibration", "Limits", "Licences"):
        assert f"## {heading}\n" in text
    for told in (*LABELS, "影评", "majority class", "95 % interval", "400 rows read", "2026-11"):
        assert told in text
    assert seal.verify(made.folder).signer in text


def test_the_card_is_read_by_the_hub_client(made):
    from huggingface_hub import ModelCard

    card = ModelCard.load(made.folder / "README.md")
    assert card.data.eval_results[0].dataset_split == "test"
    assert card.data.license == "apache-2.0"


def test_tables_of_the_card_stay_tables_whatever_labels_say():
    from modelyard.stages.papers.card import _table

    lines = _table(["a"], [["x|y\n<script>`"]]).splitlines()
    assert lines[2:] == ["| x\\|y &lt;script>' |"]


def test_lineage_has_the_digests_of_all_it_was_made_from(made, text_of):
    found = json.loads(text_of("lineage.json"))
    by_stage = {each["stage"]: each for each in found["stages"]}
    assert list(by_stage) == ["prepare", "compress", "audit"]
    assert by_stage["audit"]["takes"] == {
        "dataset": by_stage["prepare"]["digest"],
        "model": by_stage["compress"]["digest"],
    }
    assert by_stage["compress"]["version"] == "3"
    assert by_stage["compress"]["files"]["graph.onnx"] == of_file(made.folder / "graph.onnx")
    assert found["sources"]["rows"]["rows"] == of_file(made.root / "影评.csv")
    assert found["sources"]["rows"]["source"] == "影评.csv"
    assert found["sources"]["backbones"] == [BACKBONE]
    assert found["seeds"] == {"split": 42, "train": 7}
    assert found["made"]["versions"]["numpy"] == np.__version__
    assert by_stage["audit"]["record"]["machine"]["cores"]


def test_the_bill_of_materials_is_valid_cyclonedx_with_a_model_card(made, text_of):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = text_of("bom.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    model = bom["metadata"]["component"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "2026-11")
    card = model["modelCard"]
    assert card["modelParameters"]["task"] == "text-classification"
    assert card["modelParameters"]["modelArchitecture"] == "BertForSequenceClassification"
    metrics = {m["type"]: m for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    low, high = metrics["accuracy"]["confidenceInterval"].values()
    assert float(low) < float(metrics["accuracy"]["value"]) < float(high)
    assert model["pedigree"]["ancestors"][0]["name"] == "tiny"
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes["model.safetensors"] == of_file(made.folder / "model.safetensors")
    components = {each["name"]: each for each in bom["components"]}
    assert components["tiny"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert components["影评.csv"]["type"] == "data"
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{np.__version__}"
    depends = next(each for each in bom["dependencies"] if each["ref"] == model["bom-ref"])
    assert set(depends["dependsOn"]) == {each["bom-ref"] for each in bom["components"]}


def test_the_report_of_a_release_tells_the_same_figures(made, text_of):
    report = json.loads(text_of("report.json"))
    assert report["version"] == "2026-11"
    assert "2026-11" in " ".join(report["headline"])
    assert report["mistakes"]["listed"]
    assert all(each["inputs"] == {} for each in report["mistakes"]["listed"])
    assert "films 2026-11" in text_of("report.html")


def test_a_second_run_makes_no_other_release_and_another_key_does(made, monkeypatch, tmp_path):
    said = []
    assert made.release(said.append).folder == made.folder
    assert [event.stage for event in said if isinstance(event, StageSkipped)] == [
        "prepare",
        "compress",
        "audit",
        "release",
    ]
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "other"))
    other = made.release().folder
    assert other != made.folder
    assert seal.verify(other).signer == signing_key.own_fingerprint()


def test_it_says_where_the_key_is(made):
    said = []
    made.release(said.append, version="3")
    told = [event.text for event in said if isinstance(event, Noted) and "key" in event.text]
    assert str(signing_key.own_key()) in told[-1]


def test_a_backbone_for_research_is_not_for_sale(made):
    backbone = {**BACKBONE, "licence": "research only, non-commercial"}
    made.release(backbone=backbone, use="research")
    with pytest.raises(RequirementFailed, match=r"set release\.use to research"):
        made.release(backbone=backbone, use="commercial")
    with pytest.raises(RequirementFailed, match="rows are licensed"):
        made.release(use="commercial", rows_license="cc-by-nc-4.0")


def test_an_unknown_licence_is_a_warning_and_stands_in_the_card(made):
    said = []
    folder = made.release(said.append, use="commercial", rows_license="unknown").folder
    [warned] = [event.text for event in said if isinstance(event, Warned)]
    assert "licence of the rows" in warned
    assert "licence of the rows" in (folder / "README.md").read_text("utf-8")


def test_a_killed_release_leaves_nothing_half_made(made, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(folder):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("modelyard.runtime.seal.sign", kill)
        made.release(version="4")
    assert seal.verify(made.release(version="4").folder).files == 15


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("apache-2.0", "any use"),
        ("MIT", "any use"),
        ("cc-by-sa-4.0", "any use"),
        ("GPL-3.0", "any use"),
        ("cc-by-nc-sa-4.0", "research"),
        ("non-commercial", "research"),
        ("NonCommercial use only", "research"),
        ("the corpora are for research", "research"),
        ("package MIT; the corpus is for research", "research"),
        ("unknown", "unknown"),
        ("other", "unknown"),
        ("mitigated", "unknown"),
        ("proprietary", "unknown"),
    ],
)
def test_what_a_licence_allows(licence, allowed):
    assert allows(licence) == allowed


def test_only_commercial_use_is_checked(made):
    assert licence_problem(made.project(use="commercial"), {"b": "cc-by-nc-4.0"})
    assert licence_problem(made.project(use="any"), {"b": "cc-by-nc-4.0"}) is None
    assert licence_problem(made.project(use="research"), {"b": "cc-by-nc-4.0"}) is None


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("mysql+pymysql://u:p@h:3306/d?ssl_key=/k", "mysql+pymysql://h:3306/d"),
        ("sqlite:///rows.db", "sqlite:///rows.db"),
        ("hf://owner/name", "hf://owner/name"),
        ("hf://owner/name@v1:train", "hf://owner/name@v1:train"),
        ("行/评论.csv", "行/评论.csv"),
        ("postgresql://u:p%40ss@w@h/d", "postgresql://h/d"),
        ("postgresql://u:p?w@h/d", "postgresql://…"),
        ("postgresql://h/d?user=a@b&password=c", "postgresql://…"),
        ("postgresql://u:p#w@h/d", "postgresql://…"),
    ],
)
def test_a_source_is_told_without_what_opens_it(source, public):
    assert without_secrets(source) == public
