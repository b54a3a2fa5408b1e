"""Rows: encodings, files, folders, the Hub, databases, and what is the same."""

import csv
import json
import sqlite3
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import (
    BadInput,
    ColumnMissing,
    ExtraMissing,
    RowsEmpty,
    RowsMissing,
    RowsUnreadable,
    SettingInvalid,
    SourceUnreachable,
)
from modelyard.core.events import Event, Warned
from modelyard.core.project import Project
from modelyard.data import hub, same
from modelyard.data.encodings import choose, first_bad_byte
from modelyard.data.files import Writer, open_filled, open_rows
from modelyard.data.proposal import propose
from modelyard.data.source import facts, read, source_digest

CHINESE = (
    "这家店的东西很好，物流也很快，下次还会再买。\n质量太差了，用了两天就坏了，不推荐大家购买。\n"
)
TRADITIONAL = (
    "這家店的東西很好，物流也很快，下次還會再買。\n品質太差了，用了兩天就壞了，不推薦大家購買。\n"
)
RUSSIAN = "Очень хороший магазин, всем рекомендую.\nПлохое качество, больше не куплю.\n"
FRENCH = "C'est un très bon produit, j'ai été ravi.\nLa qualité laisse à désirer.\n"


def project(folder: Path, rows: str, kind: str = "text", **data: Any) -> Project:
    made = Project.model_validate(
        {
            "name": "test",
            "data": {"rows": rows, **data},
            "inputs": {kind: kind},
            "target": {"column": "label"},
        }
    )
    made._folder = folder
    return made


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8-sig"),
        (CHINESE, "utf-16", "utf-16"),
        (CHINESE, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (RUSSIAN, "cp1251", "cp1251"),
        (FRENCH, "latin-1", "cp1252"),
        ("plain words\n" * 9, "utf-16-le", "utf-16-le"),
        ("plain words\n" * 9, "utf-16-be", "utf-16-be"),
        ("text,label\n" + "plain words,good\n" * 9000 + "café,bad\n", "cp1252", "cp1252"),
    ],
)
def test_an_encoding_is_told(tmp_path: Path, text: str, encoding: str, found: str) -> None:
    path = written(tmp_path, "rows.csv", text.encode(encoding))
    chosen = choose(path)
    assert chosen.name == found
    assert path.read_text(encoding=chosen.name) == text
    assert 0.5 < chosen.confidence <= 1


@pytest.mark.parametrize("content", [bytes(range(256)) * 9, b"\x7fELF\0\0\0\1" * 99])
def test_binary_rows_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RowsUnreadable, match="binary data"):
        choose(written(tmp_path, "rows.csv", content))


def test_a_named_encoding_is_taken_at_its_word(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", "caf\xe9".encode("cp1252"))
    assert choose(path, "cp1252").name == "cp1252"
    with pytest.raises(RowsUnreadable, match="byte 0xE9 at offset 3"):
        choose(path, "utf-8")
    for unknown in ("nope", "rot13", "zlib"):
        with pytest.raises(SettingInvalid, match="no text encoding"):
            choose(path, unknown)


def test_the_first_bad_byte_is_found_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.data.encodings.BLOCK_BYTES", 4)
    path = written(tmp_path, "rows.csv", b"caf" + "éé".encode() + b"ok\xff")
    assert first_bad_byte(path, "utf-8") == 9
    assert first_bad_byte(written(tmp_path, "cut.csv", "é".encode()[:1]), "utf-8") == 0
    assert first_bad_byte(written(tmp_path, "odd.csv", b"abcabc\xff"), "gb18030") == 6


ROWS = [{"text": "one, two", "label": "1"}, {"text": 'a "b"\nc', "label": "0"}, {"text": "é 好"}]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    with Writer(path) as writer:
        writer.write(ROWS[:1])
        writer.write(ROWS[1:])
        assert not path.exists()
    batches = list(open_filled(path).batches(2))
    assert [len(batch) for batch in batches] == [2, 1]
    found = [record.values for batch in batches for record in batch]
    assert [(row["text"], row.get("label") or None) for row in found] == [
        (row["text"], row.get("label")) for row in ROWS
    ]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="'extra'"), Writer(tmp_path / "a.csv") as writer:
        writer.write([{"text": "a"}])
        writer.write([{"text": "b", "extra": 1}])
    with pytest.raises(KeyError), Writer(tmp_path / "a.parquet") as writer:
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_parquet_waits_for_what_is_in_a_list(tmp_path: Path) -> None:
    rows = [{"spans": []}, {"spans": [{"start": 0, "label": "a"}]}]
    with Writer(tmp_path / "a.parquet") as writer:
        for row in rows:
            writer.write([row])
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    with Writer(tmp_path / "b.parquet") as writer:
        writer.write(rows[:1])
    assert pq.read_table(tmp_path / "b.parquet").to_pylist() == rows[:1]


def test_parquet_waits_for_the_type_of_a_column(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.parquet") as writer:
        writer.write([{"text": "a", "score": None, "error": None}])
        writer.write([{"text": "b", "score": 0.5, "error": None}])
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.field("score").type == pa.float64()
    assert schema.field("error").type == pa.string()
    with pytest.raises(SettingInvalid, match="jsonl"), Writer(tmp_path / "b.parquet") as writer:
        writer.write([{"text": "a"}, {"text": 1}])


@pytest.mark.parametrize("name", ["rows.xlsx", "rows"])
def test_a_form_nobody_knows_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RowsUnreadable, match="csv"):
        open_rows(written(tmp_path, name, "text"))
    with pytest.raises(SettingInvalid, match="csv"):
        Writer(tmp_path / name)
    with pytest.raises(SettingInvalid, match="no folder"):
        Writer(tmp_path / "gone" / "rows.csv")


def test_lines_of_a_csv_are_counted_where_records_start(tmp_path: Path) -> None:
    text = 'text,label\n"two\nlines",a\n\nplain,b\nshort\n"x"y,c\n,,\nlong,d,e\nlast,f,\n'
    records = list(open_rows(written(tmp_path, "rows.csv", text)).records)
    found = [(r.number, r.values.get("text"), r.problem is None) for r in records]
    assert found[:3] == [(2, "two\nlines", True), (5, "plain", True), (6, "short", False)]
    assert [(number, fine) for number, _, fine in found[3:]] == [
        (7, False),
        (8, True),
        (9, False),
        (10, True),
    ]
    assert "1 fields where the header has 2" in str(records[2].problem)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ('text,label\n"open,a\nb,c\n', RowsUnreadable, "line 2: a quotation mark opens here"),
        ("text,text\na,b\n", RowsUnreadable, "'text' twice"),
        ("\n\n", RowsEmpty, "no header"),
        ("", RowsEmpty, "empty"),
        ("text,label\n", RowsEmpty, "holds no rows"),
    ],
)
def test_a_bad_csv_is_said(tmp_path: Path, content: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        list(open_filled(written(tmp_path, "rows.csv", content)).records)


@pytest.mark.parametrize(
    "line",
    [
        *('{"text": 1, "text": 2}', '{"text": 1} {"text": 2}', "{broken"),
        *("[1]", "17", '"text"', "[" * 100_000),
    ],
)
def test_a_bad_json_line_is_said(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, "rows.jsonl", '{"text": "a"}\n\n' + line + "\n")
    records = list(open_rows(path).records)
    assert [(r.number, r.problem is None) for r in records] == [(1, True), (3, False)]


def test_delimiters_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", "text;label\none, two;a\n")
    assert next(open_filled(path).records).values == {"text": "one, two", "label": "a"}
    assert open_rows(path).delimiter == ";"


def test_parquet_that_python_cannot_hold_is_said(tmp_path: Path) -> None:
    bad = [None, pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00"), pa.py_buffer(b"\xff")]
    tables = {
        "'text' twice": pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]),
        "utf-8": pa.table({"text": pa.Array.from_buffers(pa.string(), 1, bad)}),
    }
    for says, table in tables.items():
        pq.write_table(table, tmp_path / "rows.parquet")
        with pytest.raises(RowsUnreadable, match=says):
            list(open_filled(tmp_path / "rows.parquet").records)


def test_values_of_every_kind_can_be_written_or_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "rows.csv") as writer:
        writer.write([{"text": {"day": date(2024, 1, 31)}}])
    assert "2024-01-31" in (tmp_path / "rows.csv").read_text()
    with pytest.raises(SettingInvalid, match="jsonl"), Writer(tmp_path / "a.parquet") as writer:
        writer.write([{"number": 10**30}])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingInvalid, match="is a folder"):
        Writer(tmp_path / "folder.csv")


def test_no_parquet_is_said(tmp_path: Path) -> None:
    with pytest.raises(RowsUnreadable, match="no Parquet file"):
        list(open_filled(written(tmp_path, "rows.parquet", "text")).records)
    with pytest.raises(RowsMissing, match=r"gone\.csv"):
        open_filled(tmp_path / "gone.csv")


def test_streaming_needs_no_part_of_the_build_extra() -> None:
    program = (
        "import sys; import modelyard.data.files;"
        "assert not {'sklearn', 'datasketch', 'sqlalchemy', 'pandas', 'charset_normalizer'}"
        " & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    for label, name, content in [
        ("good", "b.txt", b"caf\xe9\n"),
        ("good", "a.txt", "好".encode()),
        ("bad", "deep/c.txt", "mal, raté".encode("utf-16")),
    ]:
        path = tmp_path / "rows" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_a_folder_of_text_files_by_class(by_class: Path) -> None:
    rows = read(project(by_class, "rows"))
    assert [(r.values["text"], r.values["label"]) for r in rows.records] == [
        ("mal, raté", "bad"),
        ("好", "good"),
        ("café", "good"),
    ]
    assert rows.place(rows.records[0]) == "bad/deep/c.txt"
    assert rows.encoding and "1 of 3 files" in rows.encoding.why
    with pytest.raises(RowsUnreadable, match=r"c\.txt is not gb18030"):
        read(project(by_class, "rows", encoding="gb18030"))


def test_other_files_in_a_folder_of_texts_are_told(by_class: Path) -> None:
    (by_class / "rows" / "good" / "notes.md").write_text("not a row")
    (by_class / "rows" / ".store" / "deep").mkdir(parents=True)
    (by_class / "rows" / ".store" / "deep" / "vocab.txt").write_text("neither a row nor told")
    told: list[Event] = []
    rows = read(project(by_class, "rows"), told.append)
    assert len(rows.records) == 3
    [warned] = [event for event in told if isinstance(event, Warned) and "left out" in event.text]
    assert "left out in rows: 1, such" in warned.text and "good/notes.md" in warned.text


def test_a_folder_of_images_by_class(tmp_path: Path) -> None:
    for name in ("cat/b.PNG", "cat/a.jpg", "dog/deep/c.webp", "dog/notes.md", "loose.png"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path / "rows", name, b"x")
    told: list[Event] = []
    rows = read(project(tmp_path, "rows", kind="image"), told.append)
    assert [r.values for r in rows.records] == [
        {"image": name, "label": name.partition("/")[0], "file": name}
        for name in ("cat/a.jpg", "cat/b.PNG", "dog/deep/c.webp")
    ]
    assert rows.beside == tmp_path / "rows" and rows.encoding is None
    [warned] = [event for event in told if isinstance(event, Warned)]
    assert "left out in rows: 2, such as dog/notes.md" in warned.text


def test_a_folder_without_classes_is_said(tmp_path: Path) -> None:
    written(tmp_path, "loose.txt", "a")
    with pytest.raises(RowsEmpty, match="CLASS/NAME"):
        read(project(tmp_path, "."))


def test_the_digest_follows_the_content(by_class: Path) -> None:
    path = written(by_class, "rows.csv", "text,label\na,b\n")
    one = source_digest(project(by_class, "rows.csv"))
    path.touch()
    assert source_digest(project(by_class, "rows.csv")) == one
    path.write_text("text,label\na,c\n")
    assert source_digest(project(by_class, "rows.csv")) != one
    whole = source_digest(project(by_class, "rows"))
    (by_class / "rows" / "good" / "a.txt").rename(by_class / "rows" / "bad" / "a.txt")
    assert source_digest(project(by_class, "rows")) != whole
    with pytest.raises(RowsMissing):
        source_digest(project(by_class, "gone.csv"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    connection = sqlite3.connect(tmp_path / "rows.db")
    connection.execute("create table told (id integer, text text, label integer)")
    connection.executemany("insert into told values (?, ?, ?)", [(1, "a", 0), (2, "b", 1)])
    connection.commit()
    connection.close()
    yield tmp_path


def test_rows_of_a_query(database: Path) -> None:
    query = "select text, label from told order by id"
    told = project(database, "sqlite:///rows.db", query=query)
    assert [r.values for r in read(told).records] == [
        {"text": "a", "label": 0},
        {"text": "b", "label": 1},
    ]
    assert facts(told).rows == 2
    other = project(database, "sqlite:///rows.db", query=query + " desc")
    assert source_digest(told) != source_digest(other)


@pytest.mark.parametrize(
    ("url", "query", "error", "says"),
    [
        ("sqlite:///rows.db", None, SettingInvalid, "data.query"),
        ("sqlite:///rows.db", "select gone from told", SourceUnreachable, "no such column"),
        ("sqlite:///rows.db", "select text, label from told where 0", RowsEmpty, "no rows"),
        ("sqlite:///rows.db", "select text, label as text from told", RowsUnreadable, "with AS"),
        ("sqlite:///gone.db", "select 1", RowsMissing, "gone.db"),
        ("nodb://me:secret@host/x", "select 1", BadInput, "nodb"),
        ("sqlite:///rows.db", "delete from told", RowsUnreadable, "no rows"),
    ],
)
def test_a_bad_query_is_said(
    database: Path, url: str, query: str | None, error: type, says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        read(project(database, url, query=query))
    assert "secret" not in str(refused.value)
    assert not (database / "gone.db").exists()
    connection = sqlite3.connect(database / "rows.db")
    assert connection.execute("select count(*) from told").fetchone() == (2,)
    connection.close()


class Decoding:
    """A feature of a Hub dataset that opens what it is given, unless it is told not to."""

    def __init__(self, decode: bool = True):
        self.decode = decode


class HubRows(list[dict[str, Any]]):
    features: ClassVar[dict[str, Any]] = {"photo": Decoding(), "label": object()}

    def cast_column(self, name: str, feature: Decoding) -> list[dict[str, Any]]:
        assert not feature.decode
        return [{**row, name: {"bytes": b"a", "path": None}} for row in self]


def test_images_of_the_hub_are_not_opened() -> None:
    assert hub._undecoded(HubRows([{"photo": "opened", "label": 1}])) == [
        {"photo": {"bytes": b"a", "path": None}, "label": 1}
    ]


def test_rows_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, **named: Any) -> list[dict[str, Any]]:
        asked.append((name, config, named))
        if name == "gone/gone":
            raise ConnectionError("no network")
        return [{"text": "a", "label": 1}, {"text": "b", "label": 0}]

    fake = types.SimpleNamespace(load_dataset=load_dataset, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    rows = read(project(tmp_path, "hf://owner/name@v2:plain/test"))
    assert asked == [("owner/name", "plain", {"split": "test", "revision": "v2"})]
    assert [r.values["label"] for r in rows.records] == [1, 0]
    with pytest.raises(SourceUnreachable, match="no network"):
        read(project(tmp_path, "hf://gone/gone"))
    with pytest.raises(SettingInvalid, match="hf://OWNER/NAME"):
        hub.parse("hf://a b")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ExtraMissing, match=r"modelyard\[hub\]"):
        read(project(tmp_path, "hf://owner/name"))


def test_facts_of_a_long_file_are_scaled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "text,label\n" + "four,a\n" * 1000
    written(tmp_path, "rows.csv", text)
    pq.write_table(pa.table({"text": ["four"] * 1000, "label": [1] * 1000}), tmp_path / "r.parquet")
    exact = facts(project(tmp_path, "rows.csv"))
    assert (exact.rows, exact.mean_characters) == (1000, 4.0)
    monkeypatch.setattr("modelyard.data.source.QUICK_ROWS", 100)
    assert abs(facts(project(tmp_path, "rows.csv")).rows - 1000) <= 20
    assert facts(project(tmp_path, "r.parquet")).rows == 1000


def test_columns_are_proposed(tmp_path: Path) -> None:
    rows = [
        {"id": i, "review": f"这个产品很好 {i} 号", "stars": i % 5, "label": "好坏"[i % 2]}
        for i in range(30)
    ]
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="gb18030", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    found = propose(path)
    assert (found.inputs, found.target, found.kind) == ({"review": "text"}, "label", "class")
    assert found.backbone == {"text": "m3e-small"} and "'review'" in found.why


def test_a_file_of_which_no_row_can_be_read_is_no_empty_file(tmp_path: Path) -> None:
    lines = "\n".join(["[" * 100_000] * 3)
    with pytest.raises(RowsEmpty, match=r"None of the 3 rows .*line 1: its JSON is nested too"):
        propose(written(tmp_path, "rows.jsonl", lines))


def test_no_class_to_propose_is_said(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match="looks like a class"):
        propose(written(tmp_path, "rows.csv", "text,id\na b,1\nc d,2\ne f,3\n"))


@given(st.text(max_size=60))
def test_a_text_is_alike_to_itself_however_it_is_written(text: str) -> None:
    key = same.normalised(text)
    assert same.normalised(f"  {key} \n") == key
    assert same.similarity(same.shingles(key), same.shingles(key)) == 1.0


def test_almost_equal_texts_are_found_and_others_not() -> None:
    english = " ".join(f"word{i}" for i in range(40))
    chinese = "".join(chr(0x4E00 + 7 * i) for i in range(60))
    keys = [english, "nothing like it at all", chinese, f"{english} more", chinese[:-1], "short"]
    found = {(each.index, each.first) for each in same.almost_equal(keys)}
    assert found == {(3, 0), (4, 2)}


def test_many_equal_rows_cost_no_more_than_as_many_others() -> None:
    found = same.almost_equal([f"one and the same long sentence {'x ' * i}" for i in range(30)])
    assert all(each.similarity >= same.THRESHOLD for each in found)
    assert len(same.almost_equal(["equal text for all"] * 500)) == 499


def test_json_lines_with_half_a_character_can_be_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "rows.jsonl") as writer:
        writer.write([{"text": "\ud800"}])
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"text": "\ud800"}
