"""Samples: what is written from their packages, and the project that is proposed on it."""

import gzip
import importlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.cli.main import main
from modelyard.core.errors import ExtraMissing, SettingInvalid, UnknownName
from modelyard.core.packages import Package
from modelyard.core.project_file import read_project
from modelyard.data import samples
from modelyard.data.samples.german_credit import CATEGORIES, NUMBERS
from modelyard.data.samples.zh_entities import row_of
from modelyard.data.source import open_path

KINDS = ("text", "image", "number", "category")


def written(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")


def reviews(folder: Path) -> None:
    written(folder, "reviews.csv", "text,label,source\nlong,1,imdb\nfine,1,rotten_tomatoes\n")


def news_topics(folder: Path) -> None:
    written(folder, "tech/1.txt", "a chip")


def zh_reviews(folder: Path) -> None:
    written(folder, "positive.txt", "好\n\n很好\n")
    written(folder, "negative.txt", "差\n")


def german_credit(folder: Path) -> None:
    header = ",".join([*NUMBERS, *CATEGORIES, "creditability"])
    written(folder, "germancredit.csv", header + "\n" + "7," * 20 + "good\n")


def card_fraud(folder: Path) -> None:
    header = ",".join(["Time", *(f"V{n}" for n in range(1, 29)), "Amount", "Class"])
    written(folder, "creditcard.csv", header + "\n" + "0.5," * 30 + '"0"\n')


def zh_entities(folder: Path) -> None:
    written(folder, "199801.txt", "江/nr  泽民/nr  到/v  香港/ns  。/w\n\n新华社/nt\n")


def insurance_faq(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    asked = {"zh": "问？", "en": "What  Is  It?", "domain": "life"}
    asked |= {"answers": ["7"], "negatives": ["8", "9"]}
    answers = {own: {"zh": f"答{own}", "en": f" It  is {own}"} for own in "789"}
    for name in ("train", "valid", "test", "answers"):
        content = answers if name == "answers" else {"0": asked}
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))


def grocery(folder: Path) -> None:
    """60 households buy bread in January and milk in February; fish and trees come late."""
    folder.mkdir(exist_ok=True)
    bought = [(1, 1), (2, 2), (11, 1), (11, 3), (12, 2), (12, 4)]
    lines = [
        {"household_id": own, "product_id": product, "basket_id": 100 * own + month}
        | {"sales_value": 1.25, "transaction_timestamp": datetime(2017, month, 5)}
        for own in range(60)
        for month, product in bought
    ]
    words = enumerate(["BREAD", "MILK", "FISH", "TREE", None], start=1)
    products = [{"product_id": n, "product_category": "FOOD", "product_type": w} for n, w in words]
    about = {"age": "65+", "income": "Under 15K", "household_size": "2", "kids_count": "0"}
    for name, rows in {
        "transactions": [*lines, {**lines[-1], "transaction_timestamp": datetime(2018, 1, 1, 4)}],
        "products": products,
        "demographics": [{"household_id": 3, **about}],
    }.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


MADE: dict[str, Callable[[Path], None]] = {
    "reviews": reviews,
    "news-topics": news_topics,
    "zh-reviews": zh_reviews,
    "german-credit": german_credit,
    "card-fraud": card_fraud,
    "breast-cancer": lambda folder: None,  # the installed scikit-learn has it
    "zh-entities": zh_entities,
    "insurance-faq": insurance_faq,
    "zh-insurance-faq": insurance_faq,
    "grocery": grocery,
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a project folder on a sample whose package holds few rows."""

    def made(name: str) -> Path:
        source = tmp_path / "fetched" / name
        source.parent.mkdir(exist_ok=True)
        MADE[name](source)
        monkeypatch.setattr(samples, "fetch", lambda package, events: source)
        assert main(["new", str(tmp_path / name), "--sample", name]) == 0
        return tmp_path / name

    return made


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [record.values for record in open_path(folder).records if not record.problem]


@pytest.mark.parametrize("name", samples.NAMES)
def test_a_sample_has_every_column_that_its_project_names(
    make: Callable[[str], Path], name: str
) -> None:
    folder, sample = make(name), samples.find(name)
    project = read_project(folder)
    proposal = sample.proposal
    rows = rows_in(folder / project.data.rows)
    split = project.data.split
    chosen = [split.by, split.group, split.time, split.given, getattr(project.target, "pool", None)]
    wanted = {*proposal.inputs, *proposal.others, proposal.target, *filter(None, chosen)}
    assert rows and wanted <= rows[0].keys()
    assert {n: c.kind for n, c in project.inputs.items()} == dict(proposal.inputs)
    assert project.target.kind == proposal.kind and project.release.rows_license == sample.licence
    for section, own in proposal.settings.items():
        given: Any = project
        for part in section.split("."):
            given = getattr(given, part)
        assert {key: getattr(given, key) for key in own} == own


def test_every_sample_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in told] == list(samples.NAMES) == list(MADE)
    for each in told:
        assert each["licence"] and each["rows"] > 500 and set(each["inputs"].values()) <= {*KINDS}
        assert set(each["backbone"]) == {"text"} & set(each["inputs"].values())
        assert each["target"] not in each["inputs"]


def test_every_package_is_pinned_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Package] = []
    monkeypatch.setattr(samples, "fetch", lambda package, events: asked.append(package))
    for sample in samples.known():
        sample.source(print)
    assert len(asked) == len(samples.NAMES) - 1  # scikit-learn is installed
    assert all(len(package.sha256) == 64 and package.members for package in asked)


def test_an_unknown_sample_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="reviews, news-topics, zh-reviews"):
        samples.materialise("rewiews", tmp_path)


def test_rows_that_are_there_are_kept(make: Callable[[str], Path]) -> None:
    rows = make("reviews") / "rows.csv"
    assert rows.read_text() == "text,label\nfine,positive\n"
    with pytest.raises(SettingInvalid, match="there already"):
        samples.materialise("reviews", rows.parent)


def test_texts_by_class_and_by_line(make: Callable[[str], Path]) -> None:
    assert (make("news-topics") / "rows" / "tech" / "1.txt").read_text() == "a chip"
    rows = rows_in(make("zh-reviews") / "rows.csv")
    assert [tuple(row.values()) for row in rows] == [
        ("好", "positive"),
        ("很好", "positive"),
        ("差", "negative"),
    ]


def test_scikit_learns_cases_have_names(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = rows_in(make("breast-cancer") / "rows.csv")
    assert len(rows) == 569 == samples.find("breast-cancer").rows
    assert (rows[0]["mean radius"], rows[0]["worst fractal dimension"]) == ("17.99", "0.1189")
    assert [row["diagnosis"] for row in rows].count("malignant") == 212
    module = importlib.import_module("modelyard.data.samples.breast_cancer")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match=r"modelyard\[build\]"):
        samples.materialise("breast-cancer", tmp_path / "again")


def test_payments_keep_their_types(make: Callable[[str], Path]) -> None:
    [row] = rows_in(make("card-fraud") / "rows.parquet")
    assert (row["Time"], row["Class"]) == (0.5, 0)


@pytest.mark.parametrize(
    ("line", "people"),
    [
        ("江/nr  泽民/nr  李/nr  鹏/nr  来/v", ["江泽民", "李鹏"]),
        ("克林顿/nr  叶利钦/nr  郭/nr  。/w", ["克林顿", "叶利钦", "郭"]),
        ("欧阳/nr  修/nr  和/c  陈/nr  方/nr  安生/nr", ["欧阳修", "陈方安生"]),
        ("老闫/nr  李/nr  德海/nr", ["老闫", "李德海"]),
    ],
)
def test_a_persons_name_is_one_entity(line: str, people: list[str]) -> None:
    row = row_of(line)
    found = [row["text"][e["start"] : e["end"]] for e in row["entities"]]
    assert found == people and {e["label"] for e in row["entities"]} == {"person"}


def test_entities_stand_where_their_offsets_say(make: Callable[[str], Path]) -> None:
    first, second = rows_in(make("zh-entities") / "rows.jsonl")
    said = [(first["text"][e["start"] : e["end"]], e["label"]) for e in first["entities"]]
    assert said == [("江泽民", "person"), ("香港", "place")]
    assert second == {
        "text": "新华社",
        "entities": [{"start": 0, "end": 3, "label": "organisation"}],
    }


def test_questions_come_with_answers_to_find_theirs_among(make: Callable[[str], Path]) -> None:
    folder = make("insurance-faq")
    test, validation, train = rows_in(folder / "rows.jsonl")
    assert test["question"] == "What Is It?" and test["answers"] == ["7"]
    assert [row["split"] for row in (test, validation, train)] == ["test", "validation", "train"]
    assert test["pool"] == ["7", "8", "9"] and validation["pool"] is train["pool"] is None
    candidates = rows_in(folder / "candidates.jsonl")
    assert candidates[0] == {"id": "7", "text": "It is 7"}
    assert rows_in(make("zh-insurance-faq") / "candidates.jsonl")[0]["text"] == "答7"


def test_a_household_is_to_find_what_it_has_not_bought(make: Callable[[str], Path]) -> None:
    folder = make("grocery")
    names = {row["id"]: row["text"] for row in rows_in(folder / "candidates.jsonl")}
    assert set(names.values()) == {"food: bread", "food: milk", "food: fish", "food: tree"}
    rows = [row for row in rows_in(folder / "rows.jsonl") if row["household"] == 3]
    told = [
        (row["month"], row["split"], row["history"], *map(names.get, row["bought"])) for row in rows
    ]
    assert told == [
        ("2017-02", "train", "bread", "food: milk"),
        ("2017-11", "validation", "milk, bread", "food: fish"),
        ("2017-12", "test", "fish, bread, milk", "food: tree"),
    ]
    had = [sorted(names[own] for own in row["bought_before"]) for row in rows]
    assert had == [
        ["food: bread"],
        ["food: bread", "food: milk"],
        ["food: bread", "food: fish", "food: milk"],
    ]
    assert (rows[2]["trips"], rows[2]["spent"], rows[2]["age"]) == (1, 2.5, "65+")
    of_november = {
        row["household"] % 3: row["split"]
        for row in rows_in(folder / "rows.jsonl")
        if row["month"] == "2017-11"
    }
    assert of_november == {0: "validation", 1: "train", 2: "train"}
