"""Tagged tokens in columns: every scheme as the same spans, Chinese unspaced, problems said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import RowsEmpty, RowsUnreadable
from modelyard.core.events import Decided, Event
from modelyard.core.project import Project
from modelyard.data.conll import joined, ranges
from modelyard.data.files import open_filled
from modelyard.data.source import read

TOKENS = ["Ann", "Lee", "and", "Bo", "saw", "New", "York", ",", "Rome"]
TEXT = "Ann Lee and Bo saw New York , Rome"
SPANS = [
    {"start": 0, "end": 7, "label": "PER"},
    {"start": 12, "end": 14, "label": "PER"},
    {"start": 19, "end": 27, "label": "LOC"},
    {"start": 30, "end": 34, "label": "LOC"},
]
SCHEMES = {
    "IOB1": "I-PER I-PER O I-PER O I-LOC I-LOC O I-LOC",
    "BIO": "B-PER I-PER O B-PER O B-LOC I-LOC O B-LOC",
    "BIOES": "B-PER E-PER O S-PER O B-LOC E-LOC O S-LOC",
    "BILOU": "B-PER L-PER O U-PER O B-LOC L-LOC O U-LOC",
}


def write(file: Path, *sentences: tuple[Sequence[str], Sequence[str]], parted: str = " ") -> Path:
    blocks = [
        "\n".join(parted.join([token, "X", tag]) for token, tag in zip(tokens, tags, strict=True))
        for tokens, tags in sentences
    ]
    file.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return file


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [record.values for record in open_filled(file).records]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("parted", [" ", "\t", "   "])
@pytest.mark.parametrize("suffix", ["conll", "bio", "iob"])
def test_every_scheme_is_told_and_read_as_the_same_spans(
    tmp_path: Path, scheme: str, parted: str, suffix: str
) -> None:
    tags = SCHEMES[scheme].split()
    file = write(tmp_path / f"rows.{suffix}", (TOKENS, tags), (["Hm"], ["O"]), parted=parted)
    opened = open_filled(file)
    assert opened.tags == scheme
    first, second = opened.records
    assert first.values == {"text": TEXT, "spans": SPANS}
    assert second.values == {"text": "Hm", "spans": []}
    assert (first.number, second.number) == (1, len(TOKENS) + 2)


def test_spans_that_touch_stay_apart(tmp_path: Path) -> None:
    for name, tags in (("a", "I-X B-X I-X"), ("b", "B-X B-X I-X"), ("c", "S-X B-X E-X")):
        [row] = rows_of(write(tmp_path / f"{name}.conll", (["a", "b", "c"], tags.split())))
        assert [(s["start"], s["end"]) for s in row["spans"]] == [(0, 1), (2, 5)]
    [row] = rows_of(write(tmp_path / "d.conll", (["a", "b"], ["I-X", "I-Y"])))
    assert [span["label"] for span in row["spans"]] == ["X", "Y"]


def test_marks_of_documents_and_empty_lines_make_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.conll"
    file.write_text("\n-DOCSTART- -X- O O\n\n\nA O\n\n \nB B-X\n\n-DOCSTART- O\nC O", "utf-8")
    assert [row["text"] for row in rows_of(file)] == ["A", "B", "C"]


def test_chinese_tokens_are_joined_without_spaces(tmp_path: Path) -> None:
    tokens = [*"我在北京的", "New", "York", *"2008", "年"]
    tags = ["O", "O", "B-LOC", "I-LOC", "O", "B-LOC", "I-LOC", *["O"] * 5]
    [row] = rows_of(write(tmp_path / "rows.conll", (tokens, tags)))
    assert row["text"] == "我在北京的New York 2008年"
    assert [row["text"][s["start"] : s["end"]] for s in row["spans"]] == ["北京", "New York"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("lonely", "line 3 has 1 field, not a token and its tag"),
        ("A PERSON", "line 3 has the tag 'PERSON', which is neither O nor such as B-PLACE"),
        ("A B-", "neither O nor such as"),
        ("A X-PER", "neither O nor such as"),
        ("\tB-PER", "not a token and its tag"),
    ],
)
def test_a_sentence_with_a_strange_line_is_refused_alone(
    tmp_path: Path, line: str, problem: str
) -> None:
    file = tmp_path / "rows.conll"
    file.write_text(f"A O\n\n{line}\nB O\n\nC B-X\n", encoding="utf-8")
    first, strange, last = open_filled(file).records
    assert strange.problem and problem in strange.problem
    assert (first.values["text"], last.values["text"]) == ("A", "C")


def test_a_file_without_a_sentence_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.conll"
    file.write_text("just some prose\n", encoding="utf-8")
    with pytest.raises(RowsUnreadable, match="each line is a token and its tag"):
        open_filled(file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(RowsEmpty):
        open_filled(file)


def test_a_project_reads_them_and_says_the_scheme(tmp_path: Path) -> None:
    write(tmp_path / "rows.conll", (TOKENS, SCHEMES["BIOES"].split()))
    project = Project.model_validate(
        {
            "name": "names",
            "data": {"rows": "rows.conll"},
            "inputs": {"text": "text"},
            "target": {"column": "spans", "kind": "spans"},
        }
    )
    project._folder = tmp_path
    events: list[Event] = []
    rows = read(project, events.append)
    assert rows.columns == ["text", "spans"]
    assert [e.choice for e in events if isinstance(e, Decided) and e.what == "tags"] == ["BIOES"]


LENGTHS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["", "X", "Y"])), max_size=8)


@given(LENGTHS, st.sampled_from(["BIO", "BIOES", "BILOU"]))
def test_ranges_are_those_the_tags_were_made_of(pieces: list[tuple[int, str]], scheme: str) -> None:
    tags: list[str] = []
    wanted = []
    for length, label in pieces:
        start, last = len(tags), len(tags) + length - 1
        if not label:
            tags += ["O"] * length
            continue
        wanted.append((start, last, label))
        names = ["B", *["I"] * (length - 1)]
        if scheme != "BIO":
            only, end = ("S", "E") if scheme == "BIOES" else ("U", "L")
            names = [only] if length == 1 else ["B", *["I"] * (length - 2), end]
        tags += [f"{name}-{label}" for name in names]
    assert ranges(tags) == wanted


@given(st.lists(st.sampled_from(["a", "New", "北", "1", ".", "é"]), max_size=9), st.booleans())
def test_each_token_stands_where_the_text_says(tokens: list[str], spaced: bool) -> None:
    text, starts = joined(tokens, spaced)
    assert [text[s : s + len(t)] for s, t in zip(starts, tokens, strict=True)] == tokens
