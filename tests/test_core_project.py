"""The project file: what it takes, and how it says what is wrong."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core import PROJECT_FILE
from modelyard.core.errors import ProjectFileInvalid, ProjectFileMissing, SettingInvalid
from modelyard.core.project import Project
from modelyard.core.project_file import keys_at, lines_of, read_project

LEAST = """\
name = "x"

[data]
rows = "a.csv"

[inputs]
sentence = "text"

[target]
column = "label"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / PROJECT_FILE


def read(file: Path, text: str, *settings: str) -> Project:
    file.write_text(text, encoding="utf-8")
    return read_project(file, settings)


def problems(file: Path, text: str, *settings: str) -> list[str]:
    with pytest.raises(ProjectFileInvalid) as caught:
        read(file, text, *settings)
    assert str(file) in str(caught.value)
    return caught.value.problems


def test_the_least_project_file_has_every_default(file: Path) -> None:
    project = read(file, LEAST)
    assert project.inputs["sentence"].kind == "text"
    assert project.target.kind == "class"
    assert project.data.split.test == 0.2
    assert project.train.method == "full"
    assert project.accept == {}
    assert project.folder == file.parent


def test_a_folder_is_read_as_the_file_in_it(file: Path) -> None:
    assert read_project(file.parent, read(file, LEAST).accept.values()).name == "x"


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ProjectFileMissing, match="modelyard new"):
        read_project(tmp_path / "none.toml")


def test_a_byte_order_mark_is_no_part_of_the_file(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert read_project(file).name == "x"


def test_windows_line_ends_keep_the_line_numbers(file: Path) -> None:
    file.write_bytes((LEAST + "colunm = 1\n").replace("\n", "\r\n").encode())
    with pytest.raises(ProjectFileInvalid, match=r"line 11: unknown key target\.colunm"):
        read_project(file)


def test_a_file_that_is_not_utf_8_says_where(file: Path) -> None:
    file.write_bytes('name = "财"'.encode("gb18030"))
    with pytest.raises(ProjectFileInvalid, match="not UTF-8 at byte 8; save the file as UTF-8"):
        read_project(file)


def test_bad_toml_says_the_line(file: Path) -> None:
    (problem,) = problems(file, LEAST + "kind class\n")
    assert problem.startswith("not TOML:")
    assert "line 11" in problem


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[train]\nminuts = 3", "line 13: unknown key train.minuts; did you mean 'minutes'?"),
        ("[tarin]\n", "line 12: unknown key tarin; did you mean 'train'?"),
        ("[data.split]\ntset = 0.1", "line 13: unknown key data.split.tset; did you mean 'test'?"),
        ("[compress]\nzzz = 1", "line 13: unknown key compress.zzz; known keys: max_loss, minutes"),
        ("[train]\nepochs = 0", "line 13: train.epochs: input should be greater than or equal"),
        ("[train]\nepochs = true", "line 13: train.epochs: input should be a valid integer"),
        ("[train]\nepochs = '3'", "line 13: train.epochs: input should be a valid integer"),
        ("[train]\nminutes = inf", "line 13: train.minutes: input should be a finite number"),
        ("[train]\nprecision = 'int8'", "line 13: train.precision: input should be 'auto', 'fp32'"),
        ("[accept]\naccuracy = 0.9", 'line 13: accept.accuracy: write a limit as ">= 0.9"'),
        ("[accept]\naccuracy = '=> 0.9'", "line 13: accept.accuracy: write a limit as"),
        ("[accept]\naccuracy = '>= high'", "line 13: accept.accuracy: write a limit as"),
        ("[data.split]\nby = 'a'\ntime = 'b'", "line 12: data.split: choose one of by, group"),
        ("[data.split]\ntest = 0.5\nvalidation = 0.5", "line 12: data.split: test and validation"),
        ("[data.split]\ntest = 1.0", "line 13: data.split.test: input should be less than 1"),
        ("[data.split]\nseed = -1", "line 13: data.split.seed: input should be greater than or"),
        ("[data.split]\ngroup = ''", "line 13: data.split.group: string should have at least 1"),
        ("[train]\nseed = 4294967296", "line 13: train.seed: input should be less than 4294967296"),
        ("[release]\nversion = 'a/b'", "line 13: release.version: takes letters, digits, '.'"),
        ("[inputs.other]", "line 12: inputs.other.kind is missing; it has no default"),
        ("[[serve]]\nmax_rows = 1", "line 12: serve: must be a table"),
    ],
)
def test_a_problem_is_said_with_its_line(file: Path, added: str, said: str) -> None:
    (problem,) = problems(file, f"{LEAST}\n{added}\n")
    assert problem.startswith(said)


@pytest.mark.parametrize("name", ["", "Upper", "two words", "-x", "x/y", "财报", "a" * 64])
def test_a_name_must_fit_in_an_address(file: Path, name: str) -> None:
    (problem,) = problems(file, LEAST.replace('"x"', f'"{name}"'))
    assert problem.startswith("line 1: name: takes lower-case letters, digits")


def test_all_problems_are_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = LEAST.replace('"text"', "3").replace('"a.csv"', "7") + "[train]\nseed = 1.5\nx = 1\n"
    found = problems(file, text)
    assert [re.match(r"line \d+", each)[0] for each in found] == [  # type: ignore[index]
        "line 4",
        "line 7",
        "line 12",
        "line 13",
    ]
    assert found[1] == "line 7: inputs.sentence: must be a table (got 3)"


def test_an_empty_file_lacks_four_things(file: Path) -> None:
    assert sorted(problems(file, "")) == [
        f"{key} is missing; it has no default" for key in ("data", "inputs", "name", "target")
    ]


@pytest.mark.parametrize("limit", [">= 0.92", "<=20", "> 0", "<  -1.5", " >= 1 "])
def test_a_limit_is_an_operator_and_a_number(file: Path, limit: str) -> None:
    assert read(file, f"{LEAST}[accept]\nany = '{limit}'").accept["any"] == limit.strip()


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("train.minutes=3", ("train", "minutes"), 3.0),
        ("train.method = lora", ("train", "method"), "lora"),
        ('name="a-b"', ("name",), "a-b"),
        ("data.rows=a=b.csv", ("data", "rows"), "a=b.csv"),
        ("accept.accuracy=>= 0.9", ("accept",), {"accuracy": ">= 0.9"}),
        ("data.split={test = 0.3}", ("data", "split", "test"), 0.3),
    ],
)
def test_set_overrides_one_key(
    file: Path, setting: str, path: tuple[str, ...], value: object
) -> None:
    found: object = read(file, LEAST + '[data.split]\ntime = "day"\n', setting)
    for name in path:
        found = getattr(found, name)
    assert found == value


def test_deep_nesting_is_a_problem_and_no_traceback(file: Path) -> None:
    deep = "[" * 20_000
    assert problems(file, f"{LEAST}\ny = {deep}") == ["its values are nested too deeply"]
    assert any("unknown key y" in each for each in problems(file, LEAST, f"y={deep}"))


def test_the_last_of_two_settings_holds(file: Path) -> None:
    assert read(file, LEAST, "train.epochs=4", "train.epochs=5").train.epochs == 5


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train..epochs=3", "name.first=x"])
def test_a_setting_that_cannot_be_used_is_refused(file: Path, setting: str) -> None:
    with pytest.raises(SettingInvalid, match="--set"):
        read(file, LEAST, setting)


def test_a_wrong_setting_is_not_blamed_on_a_line_of_the_file(file: Path) -> None:
    text = LEAST + "[train]\nepochs = 3\n"
    assert problems(file, text, "train.epochs=0")[0].startswith("--set train.epochs=0: train.epo")
    assert problems(file, text, "train.epoch=0")[0].startswith("--set train.epoch=0: unknown key")
    assert "(got '3\\nname = 1')" in problems(file, text, "train.epochs=3\nname = 1")[0]


def test_keys_at_follows_the_tables() -> None:
    assert keys_at(("compress",)) == ["target", "max_loss", "minutes", "unlabelled"]
    assert keys_at(("inputs", "sentence")) == []


def test_a_part_is_plain_json_of_the_sections_named(file: Path) -> None:
    part = read(file, LEAST).part("target", "compress")
    assert part == {
        "target": {
            "column": "label",
            "kind": "class",
            "candidates": None,
            "pool": None,
            "seen": None,
        },
        "compress": {
            "target": "int8",
            "max_loss": 0.01,
            "minutes": 0.0,
            "unlabelled": None,
        },
    }


KEYS = st.sampled_from(["a", "b-c", '"quoted"', '"a.b"', "'x]y'", '"q\\"#"', '"收入"', "d . e"])
VALUES = st.sampled_from(
    [
        "1",
        '"k = 1"',
        '"""\nfalse = 1\n[no]\n"""',
        "'''\nf = '\n'''",
        "[\n 1,\n 2]",
        '"#"',
        '"\u2028"',
    ]
)


@given(
    st.lists(
        st.tuples(KEYS, VALUES, st.sampled_from(["", "\n", "# c = 1\n", '# """\n'])), max_size=5
    )
)
def test_each_key_is_found_on_its_line(entries: list[tuple[str, str, str]]) -> None:
    text, expected = "", {}
    for number, (key, value, between) in enumerate(entries):
        text += f"{between}[t{number}.{key}]\n{key} = {value}\n"
        names = _path(key)
        table = (f"t{number}", *names)
        start = text.count("\n") - value.count("\n")
        expected |= {table: start - 1, (*table, *names): start}
    tomllib.loads(text)
    assert lines_of(text) == expected


def _path(dotted: str) -> tuple[str, ...]:
    if dotted == "d . e":
        return ("d", "e")
    (name,) = tomllib.loads(f"{dotted} = 1")
    return (name,)
