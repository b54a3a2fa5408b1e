"""What `new --rows` proposes: by the looks of columns, never with the answer among the inputs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.cli.project_template import Proposed, project_text
from modelyard.core.errors import BadInput, ColumnMissing
from modelyard.core.project_file import read_project
from modelyard.data.files import Writer
from modelyard.data.proposal import Proposal, propose

ROWS = range(60)
WORDS = ("late", "broken", "kind", "cheap", "fast")


def of(tmp_path: Path, *rows: dict[str, Any]) -> Proposal:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return propose(path)


def review(n: int) -> str:
    return f"it was {WORDS[n % 5]} and {n}"


def test_text_goes_in_alone_and_others_are_told(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        *(
            {
                **{
                    "review_id": 7 * n,
                    "shop": "one",
                    "text": review(n),
                    "stars": n % 7,
                    "day": n / 7,
                },
                **{"sold": f"2024-01-{n % 28 + 1:02}", "mail": f"a{n}@b", "label": "ab"[n % 2]},
            }
            for n in ROWS
        ),
    )
    assert (found.inputs, found.target, found.kind) == ({"text": "text"}, "label", "class")
    assert found.others == {"stars": "category", "day": "number"}
    for left in ("'review_id' (an id)", "'shop' (one value)", "'sold' (times)", "'mail' (an id)"):
        assert left in found.why
    assert "comments in [inputs]: 'stars', 'day'." in found.why


def test_of_a_table_all_goes_in_that_says_something(tmp_path: Path) -> None:
    rows = [
        {"id": n, "age": 20 + n % 40, "job": WORDS[n % 5], "kids": n % 3, "empty": "", "ok": n % 2}
        for n in ROWS
    ]
    found = of(tmp_path, *rows)
    assert found.inputs == {"age": "number", "job": "category", "kids": "category"}
    assert (found.target, found.kind, found.backbone) == ("ok", "class", {})
    assert "1 of the kind number and 2 of the kind category" in found.why
    assert "'id' (an id), 'empty' (no value)" in found.why


def test_a_missing_value_does_not_make_another_kind(tmp_path: Path) -> None:
    rows = [
        {"age": None if n % 4 else f" {n} ", "x": ["nan", 1.5 * n][n % 2], "ok": n % 2}
        for n in ROWS
    ]
    assert of(tmp_path, *rows).inputs == {"age": "number", "x": "number"}


TARGETS: dict[str, Any] = {
    "class": lambda n: ("late", "kind")[n % 2],
    "labels": lambda n: ["late", "late|kind", "kind", "late; kind", "kind|late"][n % 5],
    "number": lambda n: 17.5 * n,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_the_kind_of_a_target_is_told_from_its_values(tmp_path: Path, kind: str) -> None:
    rows = [{"text": review(n), "found": TARGETS[kind](n)} for n in ROWS]
    found = of(tmp_path, *rows)
    assert (found.target, found.kind) == ("found", kind)


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("labels", [["late"], ["late", "kind"], []]),
        ("spans", [[{"start": 0, "end": 2, "label": "IT"}], [], [[0, 2, "IT"], [3, 6, "WAS"]]]),
        ("spans", [{"IT": {"it": [[0, 1]]}}, {}]),
    ],
)
def test_lists_are_read_also_as_json(
    tmp_path: Path, is_json: bool, kind: str, values: list[Any]
) -> None:
    texts = [json.dumps(value) if is_json else value for value in values]
    found = of(tmp_path, *({"text": review(n), "said": texts[n % len(texts)]} for n in ROWS))
    assert (found.target, found.kind, found.inputs) == ("said", kind, {"text": "text"})


def test_codes_are_classes_and_prices_are_numbers(tmp_path: Path) -> None:
    rows = [{"text": review(n), "intent": n % 15, "price": n % 15} for n in ROWS]
    assert (of(tmp_path, *rows).target, of(tmp_path, *rows).kind) == ("intent", "class")
    found = of(tmp_path, *({k: v for k, v in row.items() if k != "intent"} for row in rows))
    assert (found.target, found.kind) == ("price", "number")


def test_a_column_of_answers_is_matched(tmp_path: Path) -> None:
    rows = [{"question": review(n), "answer": f"so it is, and longer, {n}"} for n in ROWS]
    found = of(tmp_path, *rows)
    assert (found.inputs, found.target, found.kind) == ({"question": "text"}, "answer", "match")


def test_a_split_that_comes_with_the_rows_is_taken(tmp_path: Path) -> None:
    rows = [
        {"text": review(n), "part": ("train", "Dev", "test")[n % 3], "kind": WORDS[n % 5]}
        for n in ROWS
    ]
    found = of(tmp_path, *rows)
    assert found.settings == {"data.split": {"given": "part"}} and found.target == "kind"
    assert "part" not in found.others


def test_pictures_go_in_beside_a_text(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(b"a picture")
    rows = [{"photo": f"{n % 2}.png", "note": review(n), "label": "ab"[n % 2]} for n in ROWS]
    found = of(tmp_path, *rows)
    assert found.inputs == {"photo": "image", "note": "text"}
    assert found.backbone == {"image": "efficientnet-lite0", "text": "minilm"}
    gone = of(tmp_path, *({**row, "photo": f"gone/{n}.png"} for n, row in enumerate(rows)))
    assert gone.inputs == {"note": "text"} and "'photo' (an id)" in gone.why


def test_single_words_are_text_where_there_is_nothing_else(tmp_path: Path) -> None:
    found = of(tmp_path, *({"word": f"word{n}", "label": "ab"[n % 2]} for n in ROWS))
    assert (found.inputs, found.backbone) == ({"word": "text"}, {"text": "minilm"})


def test_rows_of_which_nothing_can_go_in_are_said(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match=r"No column of .* but 'label' says anything"):
        of(tmp_path, *({"same": 1, "label": "ab"[n % 2]} for n in ROWS))


ANY_TEXT = st.text(st.characters(), max_size=8)
"""Half surrogate pairs too, which JSON can hold and UTF-8 cannot."""
NAMES = ANY_TEXT | st.sampled_from(
    ["text", "label", "id", "target", "answer", "split", "user_id", "tags", "a.b", "\x7f", '"']
)
VALUES: list[st.SearchStrategy[Any]] = [
    ANY_TEXT,
    st.integers(-5, 5),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dates().map(str),
    st.sampled_from(["a", "b|c", "b", "train", "test", "x.png"]),
    st.sampled_from(["[]", "[", '["a"]', '[[0, 1, "x"]]', '{"x": {"y": [[0, 1]]}}', "{}"]),
    st.lists(st.sampled_from(["a", "b"]) | st.integers(0, 2) | st.none(), max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["start", "end", "label"]), st.integers(0, 3))),
    st.dictionaries(st.text(max_size=2), st.integers() | st.lists(st.integers())),
]


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of columns that hold one kind of value each, more or less."""
    rows = draw(st.integers(0, 24) | st.integers(9, 24))
    columns = {}
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        kind = draw(st.sampled_from(VALUES) | st.just(st.one_of(VALUES)))
        columns[name] = draw(st.lists(kind, min_size=rows, max_size=rows))
    if draw(st.integers(0, 3)):  # or almost all would be refused
        columns[draw(NAMES)] = [("good", "bad")[n % 2] for n in range(rows)]
    return [{name: values[n] for name, values in columns.items()} for n in range(rows)]


ODD = [
    {"\ud800": n, "\x7f": n / 7, "[x": "[", "huge": 10**400 + n, "label": "ab"[n % 2]} for n in ROWS
]


@given(rows=tables())
@example(rows=ODD)
@settings(max_examples=300, deadline=None)
def test_whatever_the_rows_are_a_project_on_them_can_be_read(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Or they are refused in a sentence; the answer is never among what goes in."""
    folder = tmp_path_factory.mktemp("made")
    try:
        found = of(folder, *rows)
    except BadInput as error:
        assert "\n" not in str(error)
        return
    assert found.target not in {**found.inputs, **found.others} and found.inputs
    assert not found.inputs.keys() & found.others.keys() and found.why.endswith(".")
    text = project_text("made", Proposed("rows.jsonl", "unknown", found))
    (folder / "modelyard.toml").write_text(text, encoding="utf-8")
    project = read_project(folder)
    assert {name: column.kind for name, column in project.inputs.items()} == found.inputs
    assert (project.target.column, project.target.kind) == (found.target, found.kind)
    assert project.data.split.given == found.settings.get("data.split", {}).get("given")


@given(lines=st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=4), max_size=12))
@settings(deadline=None)
def test_whatever_a_table_of_text_holds_is_no_traceback(
    lines: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("made") / "rows.csv"
    with Writer(path) as writer:
        writer.write([dict(enumerate(line)) for line in lines if len(line) == len(lines[0])])  # type: ignore[misc]
    try:
        found = propose(path)
    except BadInput:
        return
    assert found.target not in found.inputs
