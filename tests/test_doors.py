"""The doors: what is refused before anything runs, and what the command makes of bad input."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from modelyard import doors
from modelyard.cli.answers import answer
from modelyard.cli.main import main
from modelyard.core.artefacts import Manifest
from modelyard.core.errors import SettingInvalid
from modelyard.core.events import silent
from modelyard.core.project_file import read_project
from modelyard.core.stages import unmet
from modelyard.data import source
from modelyard.data.files import Record, open_filled
from modelyard.models.methods import METHODS
from modelyard.service.server import serve
from modelyard.stages import build_stages

ROWS = "text,label\n" + "".join(f"film {n},{'good' if n % 2 else 'bad'}\n" for n in range(20))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "config"))
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    assert main(["new", str(tmp_path / "films"), "--rows", str(tmp_path / "rows.csv")]) == 0
    return tmp_path / "films"


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.method=ful", "'full', 'head' or 'lora'"),
        ("backbone.text=minilmm", "known name (minilm, m3e-small)"),
        ("backbone.text=~nobody/x y", "known name (minilm, m3e-small)"),
        ("data.split.test=0", "set it above 0"),
        ("inputs.label=text", "both an input and the target"),
        ('inputs.text={kind="text",windos=3}', "did you mean 'windows'?"),
        ('inputs.text={kind="text",windows="a"}', "got 'a'"),
    ],
)
def test_what_would_end_a_run_late_is_refused_first(
    project: Path, command: str, setting: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(project), "--set", setting, "--json"]) == 2
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["event"] == "error" and said in told["message"]
    assert not (project / ".modelyard").exists()


BAD_ROWS = {
    "wrong encoding": (ROWS.encode() + b"caf\xe9,good\n", "0xE9"),
    "missing column": (b"review,label\na,b\n", "'review', 'label'"),
    "other case": (b"Text,label\na,b\n", "'Text'"),
    "one class": (b"text,label\na,x\nb,x\nc,x\n", "two classes or more"),
    "a class with one row": (ROWS.encode() + b"film,odd\n", "'odd' (1)"),
    "long text": (b"text,label\n" + b"x" * 200_000 + b",a\n", "200,000 characters"),
    "empty file": (b"", "is empty"),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_bad_rows_end_with_status_2_and_one_sentence(
    project: Path, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = BAD_ROWS[bad]
    (project.parent / "rows.csv").write_bytes(content)
    assert main(["run", str(project), "--set", "data.encoding=utf-8"]) == 2
    told = capsys.readouterr().err
    [sentence] = [line for line in told.splitlines() if line.startswith("error")]
    assert said in sentence and len(sentence) < 500 and "Traceback" not in told
    assert not list((project / ".modelyard").glob("objects/*"))


@pytest.mark.parametrize("method", METHODS)
def test_the_project_file_knows_every_method(project: Path, method: str) -> None:
    assert read_project(project, [f"train.method={method}"]).train.method == method


def test_a_folder_that_is_a_file_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS, encoding="utf-8")
    assert main(["new", str(rows / "films"), "--rows", str(rows)]) == 2
    assert "Not a directory" in capsys.readouterr().err
    assert rows.read_text(encoding="utf-8") == ROWS


def test_the_rows_are_no_place_for_the_answers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = str(project.parent / "rows.csv")
    assert main(["predict", str(project), rows, "--out", rows]) == 2
    assert "give another file" in capsys.readouterr().err


def _runtime() -> Any:
    return SimpleNamespace(
        spec=SimpleNamespace(inputs=[]),
        columns=SimpleNamespace(names=["text"]),
        problem=lambda row: None,
        predict=lambda rows: [{"label": "bad", "score": 0.9}] * len(rows),
        answer_fields=("label", "score"),
    )


def answered(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    records = [Record(number, row) for number, row in enumerate(rows, start=1)]
    return list(answer(_runtime(), records, "line"))


def test_a_row_that_cannot_be_read_harms_no_other(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,kind\na film,x\nshort\nanother,y\n", encoding="utf-8")
    records = list(open_filled(rows).records)
    first, bad, last = answer(_runtime(), records, "line")
    assert bad["error"] == "line 3: it has 1 fields where the header has 2"
    assert [row["label"] for row in (first, bad, last)] == ["bad", None, "bad"]
    assert set(bad) == {"text", "label", "score", "error"}


def test_a_row_without_the_column_harms_no_other() -> None:
    bad, good = answered({"txt": "a film"}, {"text": "a film"})
    assert (bad["label"], bad["error"]) == (None, "the row lacks the column 'text'")
    assert (good["label"], good["error"]) == ("bad", None)


def test_every_stage_finds_what_it_takes() -> None:
    assert unmet(build_stages()) == []


def test_an_answer_takes_no_column_of_the_row_away() -> None:
    [told] = answered({"text": "a film", "label": "good"})
    assert (told["given_label"], told["label"], told["text"]) == ("good", "bad", "a film")
    [again] = answered({"label": "good", "given_label": "own"})
    assert (again["given_label"], again["given_given_label"]) == ("own", "good")


def test_a_password_is_in_no_message_and_not_in_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    opened = source.open_path(tmp_path / "rows.csv")
    monkeypatch.setattr(source, "_open", lambda data, base: opened)
    settings = ["data.rows=postgresql://ann:secret@db/x", "data.query=SELECT 1"]
    rows = source.read(read_project(project, settings), silent)
    assert rows.name == "postgresql://db/x"


def test_a_port_that_no_machine_has_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="--port takes 0 to 65535"):
        serve(FastAPI(), "127.0.0.1", 99_999, lambda url: None)


def test_a_plan_makes_no_key(project: Path, tmp_path: Path) -> None:
    assert main(["plan", str(project)]) == 0
    assert not (tmp_path / "config").exists()


def test_a_run_that_could_not_sign_is_refused_first(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "rows.csv" / "keys"))
    assert main(["run", str(project)]) == 2
    assert "set MODELYARD_CONFIG to a folder" in capsys.readouterr().err
    assert not (project / ".modelyard").exists()


def test_a_projects_release_is_that_of_its_last_run_whatever_became_of_its_rows(
    project: Path, tmp_path: Path
) -> None:
    store = doors.store_of(read_project(project, []))
    for digest in ("a" * 64, "b" * 64):
        manifest = Manifest(
            stage="release", version="1", key=digest, digest=digest,
            files={}, sizes={}, causes={}, record={},
        )  # fmt: skip
        store.folder(manifest).mkdir(parents=True)
        file = store.root / "made" / "release" / f"{digest}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(manifest.model_dump_json())
    (tmp_path / "rows.csv").unlink()
    assert doors.release_folder(project) == store.folder(manifest)
