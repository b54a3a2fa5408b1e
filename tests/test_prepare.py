"""The prepare stage: what it writes, what it refuses, and what it says."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core import digest
from modelyard.core.artefacts import Dataset
from modelyard.core.errors import (
    BadInput,
    ClassTooSmall,
    ColumnMissing,
    RowsEmpty,
    RowsMissing,
    RowsUnreadable,
    SettingInvalid,
    SplitImpossible,
    TextTooLong,
    TooFewClasses,
)
from modelyard.core.events import Decided, Event, Noted, Warned
from modelyard.core.project import Project
from modelyard.core.stages import RowFacts
from modelyard.core.store import Draft
from modelyard.doors import facts_of
from modelyard.stages.prepare import prepare

PARTS = ("train", "validation", "test")
GOOD = ["text,label", *(f"text number {n},{'good' if n % 2 else 'bad'}" for n in range(60))]


def project(folder: Path, rows: str = "rows.csv", **data: Any) -> Project:
    made = Project.model_validate(
        {
            "name": "test",
            "data": {"rows": rows, **data},
            "inputs": {"text": "text"},
            "target": {"column": "label"},
        }
    )
    made._folder = folder
    return made


def run(told: Project, out: Path) -> tuple[Dataset, list[Event]]:
    events: list[Event] = []
    out.mkdir(parents=True)
    prepare.run(project=told, draft=Draft(out, out, {}), events=events.append)
    return Dataset(out), events


def prepared(folder: Path, lines: list[str], **data: Any) -> tuple[Dataset, list[Event]]:
    (folder / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    return run(project(folder, **data), folder / "out")


def parts(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    return {name: pq.read_table(dataset.part(name)).to_pylist() for name in PARTS}


def refused(dataset: Dataset) -> list[dict[str, Any]]:
    lines = (dataset.folder / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_rows_are_parted_and_told(tmp_path: Path) -> None:
    dataset, events = prepared(tmp_path, GOOD)
    rows = parts(dataset)
    assert {name: len(part) for name, part in rows.items()} == {
        "train": 42,
        "validation": 6,
        "test": 12,
    }
    every = {row["_row"]: (row["text"], row["label"]) for part in rows.values() for row in part}
    assert every[2] == ("text number 0", "bad") and sorted(every) == list(range(2, 62))
    assert refused(dataset) == []
    assert Noted("60 rows read, none refused.") in events
    report = dataset.read_json("data-report.json")
    assert report["rows"] == {"read": 60, "kept": 60, "refused": 0, "measured_on": "all rows"}
    assert report["classes"][0] == {
        "label": "bad",
        "rows": 30,
        "share": 0.5,
        "train": 21,
        "validation": 3,
        "test": 6,
    }
    assert report["characters"]["text"]["test"]["rows"] == 12
    assert report["languages"]["measured_on"].startswith("60 of 60 kept rows")


def test_what_is_refused_goes_to_a_file_with_its_line_and_reason(tmp_path: Path) -> None:
    bad = [
        "text number 3,good",  # line 62: of line 5
        "  ,good",
        "no label,",
        "both,good",
        "both,bad",
        "BOTH,good",
        "ragged",
    ]
    dataset, events = prepared(tmp_path, [*GOOD, *bad])
    found = {each["row"]: (each["kind"], each["reason"]) for each in refused(dataset)}
    assert found == {
        62: ("duplicate", "duplicate of line 5"),
        63: ("empty", "column 'text' is empty"),
        64: ("missing value", "column 'label' has no value"),
        65: ("contradictory", "the same text as line 66, which has another label"),
        66: ("contradictory", "the same text as line 65, which has another label"),
        67: ("contradictory", "the same text as line 66, which has another label"),
        68: ("unreadable", "it has 1 fields where the header has 2"),
    }
    assert refused(dataset)[0]["values"] == {"text": "text number 3", "label": "good"}
    assert dataset.read_json("data-report.json")["refused"] == {
        "contradictory": 3,
        "duplicate": 1,
        "empty": 1,
        "missing value": 1,
        "unreadable": 1,
    }
    assert any(isinstance(e, Noted) and "67 rows read, 7 refused" in e.text for e in events)


TEXTS = st.sampled_from(["a b c", "A  b c", "d e", "D e ", "", " ", "f", *map(str, range(9))])
LABELS = st.sampled_from(["x", "x", "x", "y", "y", ""])


BASE = [(f"base {n}", "xy"[n % 2]) for n in range(14)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, LABELS), max_size=40), st.integers(0, 3))
def test_no_row_is_lost_and_no_text_is_on_two_sides(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, str]], seed: int
) -> None:
    rows = [*BASE, *drawn]
    lines = ["text,label", *(f'"{text}","{label}"' for text, label in rows)]
    dataset, _ = prepared(tmp_path_factory.mktemp("law"), lines, split={"seed": seed})
    found = parts(dataset)
    numbers = [row["_row"] for part in found.values() for row in part]
    numbers += [each["row"] for each in refused(dataset)]
    assert sorted(numbers) == list(range(2, len(rows) + 2))
    texts = [{" ".join(row["text"].lower().split()) for row in part} for part in found.values()]
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    prepared(tmp_path, [*GOOD, "text number 3,good"])
    run(project(tmp_path), tmp_path / "again")
    assert digest.of_folder(tmp_path / "out") == digest.of_folder(tmp_path / "again")


BAD_ROWS: list[tuple[str, bytes, type[BadInput], str]] = [
    ("wrong encoding", "\n".join(GOOD).encode() + b"\ncaf\xe9,good", RowsUnreadable, "0xE9 at"),
    ("binary", bytes(range(256)) * 9, RowsUnreadable, "binary data"),
    ("missing column", b"review,label\na,b\n", ColumnMissing, "columns are 'review', 'label'"),
    ("other case", b"Text,label\na,b\n", ColumnMissing, "there is 'Text': write it so"),
    ("one class", b"text,label\na,x\nb,x\nc,x\n", TooFewClasses, "two classes or more"),
    ("one row", b"text,label\na,x\nb,x\nc,x\nd,y\n", ClassTooSmall, r"'y' \(1\)"),
    ("long text", b"text,label\n" + b"x" * 200_000 + b",a\n", TextTooLong, "200,000 characters"),
    ("empty file", b"", RowsEmpty, "empty"),
    ("header alone", b"text,label\n", RowsEmpty, "holds no rows"),
    ("nothing usable", b"text,label\n ,a\nb,\n", RowsEmpty, "None of the 2 rows"),
    ("too few", b"text,label\na,x\nb,x\nc,x\nd,y\ne,y\n,y\n", ClassTooSmall, "fewer than 3"),
]


@pytest.mark.parametrize(
    ("content", "error", "says"), [each[1:] for each in BAD_ROWS], ids=[e[0] for e in BAD_ROWS]
)
def test_bad_rows_get_one_sentence_with_the_remedy(
    tmp_path: Path, content: bytes, error: type[BadInput], says: str
) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    data = {"encoding": "utf-8"} if b"caf\xe9" in content else {}
    with pytest.raises(error, match=says) as raised:
        run(project(tmp_path, **data), tmp_path / "out")
    message = str(raised.value)
    assert error.exit_status == 2 and len(message) < 400 and "\n" not in message
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RowsMissing, match=r"rows\.csv"):
        run(project(tmp_path), tmp_path / "out")


def test_a_long_text_names_its_row_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(TextTooLong, match=r"line 62: .* 51 .* limit is 50; .*max_characters"):
        prepared(tmp_path, [*GOOD, "x" * 51 + ",good"], max_characters=50)


@pytest.mark.parametrize("encoding", ["gb18030", "cp1252", "utf-16"])
def test_an_encoding_is_told_and_read_right(tmp_path: Path, encoding: str) -> None:
    word = "très bonne qualité" if encoding == "cp1252" else "这家店的东西很好"
    lines = ["text,label", *(f"{word} {n},{'good' if n % 2 else 'bad'}" for n in range(20))]
    (tmp_path / "rows.csv").write_bytes("\n".join(lines).encode(encoding))
    dataset, events = run(project(tmp_path), tmp_path / "out")
    assert all(row["text"].startswith(word) for row in parts(dataset)["train"])
    chosen = next(e for e in events if isinstance(e, Decided) and e.what == "encoding")
    assert chosen.choice == encoding and "confidence" in chosen.why
    assert dataset.read_json("data-report.json")["source"]["encoding"]["name"] == encoding


def test_labels_stay_text_whatever_they_were(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {n}", "label": n % 2}) for n in range(20)]
    lines.append(json.dumps({"text": "list", "label": [1]}))
    lines.append(json.dumps({"text": 17, "label": 1}))
    lines.append(json.dumps({"text": "half \ud800", "label": 1}))
    lines.append(json.dumps({"text": "half a label", "label": "\ud800"}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    dataset, _ = run(project(tmp_path, "rows.jsonl"), tmp_path / "out")
    assert {row["label"] for row in parts(dataset)["train"]} == {"0", "1"}
    assert [each["kind"] for each in refused(dataset)] == [
        "wrong target",
        "wrong input",
        "wrong input",
        "wrong target",
    ]


def test_parquet_rows_without_a_value_are_refused(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {n}", "label": float(n % 2)} for n in range(20)]
    rows += [{"text": "not a number", "label": float("nan")}, {"text": None, "label": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    dataset, events = run(project(tmp_path, "rows.parquet"), tmp_path / "out")
    assert {row["label"] for row in parts(dataset)["train"]} == {"0.0", "1.0"}
    assert [(e["row"], e["place"], e["kind"]) for e in refused(dataset)] == [
        (21, "row 21", "missing value"),
        (22, "row 22", "empty"),
    ]
    assert not any(isinstance(e, Decided) and e.what == "encoding" for e in events)


def test_near_duplicates_are_counted_or_refused(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(30))
    lines = [*GOOD, f"{words},good", f"{words} more,good"]
    dataset, _ = prepared(tmp_path, lines)
    near = dataset.read_json("data-report.json")["near_duplicates"]
    assert (near["rows"], near["examples"][0]["places"]) == (1, ["line 62", "line 63"])
    dataset, _ = run(project(tmp_path, near_duplicates="refuse"), tmp_path / "refused")
    found = refused(dataset)
    assert [(each["row"], each["kind"]) for each in found] == [(63, "near duplicate")]
    assert "like line 62" in found[0]["reason"]


def test_a_test_row_like_a_training_row_is_warned_of(tmp_path: Path) -> None:
    words = [" ".join(f"{n}w{i}" for i in range(30)) for n in range(20)]
    lines = [
        f"{text}{end},{'good' if n % 2 else 'bad'}"
        for n, text in enumerate(words)
        for end in ("", " more")
    ]
    dataset, events = prepared(tmp_path, ["text,label", *lines])
    like = dataset.read_json("data-report.json")["near_duplicates"]["like_a_training_row"]
    assert like["test"] > 0
    assert any(isinstance(e, Warned) and f"{like['test']} test rows" in e.text for e in events)


def test_equal_texts_are_moved_and_said(tmp_path: Path) -> None:
    shouted = [line.upper().replace("GOOD", "good").replace("BAD", "bad") for line in GOOD[1:]]
    dataset, events = prepared(tmp_path, [*GOOD, *shouted])
    moved = dataset.read_json("data-report.json")["split"]["moved_to_training"]
    assert moved > 0
    assert any(isinstance(e, Noted) and f"{moved} rows were moved" in e.text for e in events)


def test_labels_that_differ_by_case_are_warned_of(tmp_path: Path) -> None:
    _, events = prepared(tmp_path, [*GOOD, *(f"other {n},Good" for n in range(5))])
    assert any(isinstance(e, Warned) and "['Good', 'good']" in e.text for e in events)


def test_a_split_by_time_warns_of_labels_unseen_in_training(tmp_path: Path) -> None:
    lines = ["text,label,day", *(f"{line},2024-01-{n % 28 + 1:02}" for n, line in enumerate(GOOD))]
    lines = lines[:1] + lines[2:] + [f"new {n},novel,2024-02-0{n}" for n in range(1, 5)]
    dataset, events = prepared(tmp_path, lines, split={"time": "day"})
    assert {row["label"] for row in parts(dataset)["train"]} == {"good", "bad"}
    assert any(isinstance(e, Warned) and "'novel'" in e.text for e in events)


def test_a_row_without_its_group_is_refused(tmp_path: Path) -> None:
    lines = ["text,label,who", *(f"{line},p{n % 12}" for n, line in enumerate(GOOD[1:]))]
    dataset, _ = prepared(tmp_path, [*lines, "no group,good,"], split={"group": "who"})
    assert [(each["row"], each["kind"]) for each in refused(dataset)] == [(62, "missing value")]


def test_a_split_column_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match="'who'"):
        prepared(tmp_path, GOOD, split={"group": "who"})


def test_a_column_that_cannot_be_put_in_order_is_said(tmp_path: Path) -> None:
    lines = ["text,label,day", *(f"{line},soon" for line in GOOD[1:])]
    with pytest.raises(SplitImpossible, match=r"data\.split\.time"):
        prepared(tmp_path, lines, split={"time": "day"})


def test_a_target_that_is_an_input_is_refused(tmp_path: Path) -> None:
    told = project(tmp_path).model_copy(
        update={"target": project(tmp_path).target.model_copy(update={"column": "text"})}
    )
    with pytest.raises(SettingInvalid, match="both an input and the target"):
        run(told, tmp_path / "out")


def test_the_key_follows_the_rows(tmp_path: Path) -> None:
    prepared(tmp_path, GOOD)
    before = prepare.causes_of(project(tmp_path), {})
    (tmp_path / "rows.csv").write_text("\n".join(GOOD[:-1]))
    after = prepare.causes_of(project(tmp_path), {})
    assert prepare.key(before) != prepare.key(after)
    need = prepare.estimate(project(tmp_path), RowFacts(10_000, 100.0))
    assert need.seconds > 2 and need.memory_bytes > 10**8 and need.disk_bytes > 10**6


def match_project(folder: Path, rows: list[dict[str, Any]], **target: Any) -> Project:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = project(folder, "rows.jsonl")
    data = made.model_dump() | {"target": {"column": "answer", "kind": "match", **target}}
    again = Project.model_validate(data)
    again._folder = folder
    return again


def test_what_was_seen_and_is_no_candidate_is_passed_over_and_counted(tmp_path: Path) -> None:
    candidates = [{"id": f"a{n}", "text": f"answer {n}"} for n in range(4)]
    lines = "\n".join(map(json.dumps, candidates))
    (tmp_path / "candidates.jsonl").write_text(lines, encoding="utf-8")
    rows = [
        {"text": f"question {n}", "answer": f"a{n % 3}", "had": ["a3", "gone"]} for n in range(30)
    ]
    rows[0]["answer"], rows[1]["had"], rows[2]["had"] = "gone", ["gone"], [{}]
    told = match_project(tmp_path, rows, candidates="candidates.jsonl", seen="had")
    dataset, events = run(told, tmp_path / "out")
    kept = {row["_row"]: row["answer"]["seen"] for own in parts(dataset).values() for row in own}
    assert kept.pop(2) == [] and set(map(tuple, kept.values())) == {("a3",)}
    reasons = {each["row"]: each["reason"] for each in refused(dataset)}
    assert set(reasons) == {1, 3} and "'gone', which is not" in reasons[1]
    noted = [event.text for event in events if isinstance(event, Noted)]
    assert any(text.startswith("28 of the 55 candidates that rows have seen") for text in noted)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"kind": "class", "seen": "had"}, "target.seen is 'had', and a target of kind 'class'"),
        ({"kind": "number", "pool": "near"}, "target.pool is 'near', and a target of kind"),
        ({"kind": "labels", "candidates": "c.jsonl"}, "picks from no candidates; take the key out"),
        ({"seen": "answer"}, "target.column and target.seen are both the column 'answer'"),
        ({"pool": "answer"}, "target.column and target.pool are both the column 'answer'"),
        ({"pool": "had", "seen": "had"}, "target.pool and target.seen are both the column 'had'"),
    ],
)
def test_keys_of_candidates_that_cannot_be_meant_are_refused(
    tmp_path: Path, target: dict[str, Any], told: str
) -> None:
    rows = [{"text": f"question {n}", "answer": f"a{n % 3}", "had": ["a1"]} for n in range(30)]
    with pytest.raises(SettingInvalid, match=re.escape(told)):
        run(match_project(tmp_path, rows, **target), tmp_path / "out")


def test_rows_of_several_texts_are_equal_where_each_column_is(tmp_path: Path) -> None:
    texts = [("a\nb", "c"), ("a", "b\nc"), ("c", "a\nb"), ("d", None), (None, "d"), (" a b ", "C")]
    texts += [(f"title {n}", f"body {n}") for n in range(40)]
    rows = [{"title": t, "body": b, "label": f"l{n % 2}"} for n, (t, b) in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = project(tmp_path, "rows.jsonl")
    told = Project.model_validate(made.model_dump() | {"inputs": {"title": "text", "body": "text"}})
    told._folder = tmp_path
    dataset, _ = run(told, tmp_path / "out")
    assert {each["row"]: each["kind"] for each in refused(dataset)} == {
        1: "contradictory",
        6: "contradictory",  # but for case and white space
    }


def test_a_quick_look_counts_labels_and_measures_candidates(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "Ann is in Rome", "answer": ["a", "b"]},
        {"text": "Bob", "answer": "[]"},
        {"text": "Berlin", "answer": "c;a"},
        {"text": "", "answer": None},
    ]
    assert facts_of(match_project(tmp_path, rows, kind="labels")).labels == 3
    own = facts_of(match_project(tmp_path, rows[:1]))
    assert (own.labels, own.candidate_characters) == (0, 1.0)
    (tmp_path / "c.csv").write_text("text\nfour\n12 letters..\n", encoding="utf-8")
    assert facts_of(match_project(tmp_path, rows, candidates="c.csv")).candidate_characters == 8.0
    rows[0]["answer"] = [[0, 3, "PERSON"], [10, 14, "PLACE"], [10, 99, "BEYOND"]]
    rows[2]["answer"] = [[0, 6, "PLACE"]]
    assert facts_of(match_project(tmp_path, rows, kind="spans")).labels == 1
