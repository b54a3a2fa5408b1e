"""The command predict: parts in several processes, killed and gone on with, joined to one file."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from tests.service_host import WORDS, write_release

from modelyard.cli.main import main
from modelyard.cli.predict import PART_ROWS
from modelyard.core.events import silent
from modelyard.data.files import open_rows
from modelyard.data.parts import Parts, begun
from modelyard.runtime import seal

PARTS = 8
GONE_SECONDS = 120.0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal.sign(write_release(tmp_path_factory.mktemp("predict") / "tiny")).folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of several parts; the last one is short."""
    return write_rows(tmp_path_factory.mktemp("rows") / "many.csv", (PARTS - 1) * PART_ROWS + 5)


@pytest.fixture(scope="module")
def undisturbed(release: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("undisturbed") / "out.csv"
    assert predict(release, many, out, 1) == 0
    return out.read_bytes()


def write_rows(file: Path, count: int) -> Path:
    """Rows with their number; some cannot be answered."""
    rng = random.Random(0)
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write("id,text,label\n")
        for number in range(count):
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 20))) if number % 100 else " "
            more = ",odd" if number % 1000 == 7 else ""
            out.write(f"{number},{text},good{more}\n")
    return file


def predict(release: Path, rows: Path, out: Path, processes: int) -> int:
    return main(
        ["predict", str(release), str(rows), "--out", str(out), "--processes", str(processes)]
    )


def started(release: Path, rows: Path, out: Path, processes: int) -> subprocess.Popen[str]:
    words = ["predict", str(release), str(rows), "--out", str(out), "--processes", str(processes)]
    return subprocess.Popen(
        [sys.executable, "-m", "modelyard", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,
    )


def _hears_ctrl_c() -> None:
    """What a shell starts in the background does not, nor what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def parts_done(out: Path) -> int:
    """How many parts a run has told to be done."""
    files = list(out.with_name(f"{out.name}.parts").glob("*/done.jsonl"))
    return files[0].read_text(encoding="utf-8").count("}") if files else 0


def wait_for_parts(running: subprocess.Popen[str], out: Path, parts: int) -> None:
    while parts_done(out) < parts and running.poll() is None:
        time.sleep(0.002)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    ends = time.monotonic() + GONE_SECONDS
    while any(map(is_there, processes)):
        assert time.monotonic() < ends, "an orphan goes on"
        time.sleep(0.01)


def is_there(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may be known until whoever adopted it asks for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("processes", "kills"), [(1, 1), (2, 2)])
def test_a_killed_run_is_gone_on_with(
    release: Path, many: Path, undisturbed: bytes, tmp_path: Path, processes: int, kills: int
) -> None:
    out, rng, standing = tmp_path / "out.csv", random.Random(processes), 0
    for _ in range(kills):
        with started(release, many, out, processes) as running:
            wait_for_parts(running, out, standing + rng.randint(1, 2))
            time.sleep(rng.uniform(0, 0.02))  # wherever it is then
            children = psutil.Process(running.pid).children(recursive=True)
            running.kill()
            assert running.wait() == -signal.SIGKILL
            wait_until_gone(children)
            assert not out.exists()
        assert parts_done(out) > standing
        standing = parts_done(out)
    with started(release, many, out, processes) as running:
        _, told = running.communicate()
    assert running.returncode == 0
    again = int(told.partition("going on from ")[2].partition(" rows")[0].replace(",", ""))
    assert again >= (standing - 1) * PART_ROWS  # what was done is not done again
    assert out.read_bytes() == undisturbed and kept(tmp_path) == ["out.csv"]
    with out.open(encoding="utf-8", newline="") as file:
        numbers = [int(row["id"]) for row in csv.DictReader(file)]
    assert numbers == list(range((PARTS - 1) * PART_ROWS + 5))


def test_a_worker_that_is_killed_is_said_and_nothing_done_is_lost(
    release: Path, many: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    with started(release, many, out, 2) as running:
        wait_for_parts(running, out, 1)
        children = psutil.Process(running.pid).children(recursive=True)
        workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        workers[0].kill()
        _, told = running.communicate()
    assert running.returncode == 1 and "Traceback" not in told
    [sentence] = [line for line in told.splitlines() if line.startswith("error")]
    assert "ended before it was done" in sentence and "rows are kept in" in told
    assert not out.exists() and parts_done(out) >= 1
    assert predict(release, many, out, 1) == 0
    assert out.read_bytes() == undisturbed


def test_a_run_that_is_stopped_leaves_its_parts(
    release: Path, many: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    with started(release, many, out, 2) as running:
        wait_for_parts(running, out, 1)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    assert running.returncode == 130 and "Traceback" not in told
    assert "the same command goes on from there" in told
    assert predict(release, many, out, 2) == 0
    assert out.read_bytes() == undisturbed


def mixed(file: Path) -> Path:
    """Rows of more than one part: later ones have values and columns the first have not."""
    rng = random.Random(1)
    with file.open("w", encoding="utf-8") as out:
        for number in range(PART_ROWS + 40):
            late = number >= PART_ROWS
            row: dict[str, Any] = {"text": rng.choice(WORDS), "label": "good", "empty": None}
            row |= {"price": 1.5 if late else 1, "note": "late" if late else None, "tags": []}
            row |= {"tags": [{"start": 1}]} if late else {}
            out.write(json.dumps(row | ({"text": ""} if number % 50 == 3 else {})) + "\n")
    return file


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_the_bytes_are_the_same_with_any_number_of_processes(
    release: Path, tmp_path: Path, suffix: str
) -> None:
    rows = mixed(tmp_path / "rows.jsonl")
    outs = [tmp_path / f"{processes}.{suffix}" for processes in (1, 2)]
    for processes, out in enumerate(outs, start=1):
        assert predict(release, rows, out, processes) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    found = [record.values for record in open_rows(outs[0]).records]
    asked = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in found] == [row["text"] for row in asked]
    assert all(row["given_label"] == "good" for row in found)
    assert [bool(row["error"]) for row in found] == [not row["text"] for row in asked]
    assert [float(row["price"]) for row in found] == [row["price"] for row in asked]


def test_parquet_has_one_type_for_each_column_whichever_part_shows_it(
    release: Path, tmp_path: Path
) -> None:
    rows = mixed(tmp_path / "rows.jsonl")
    with rows.open("a", encoding="utf-8") as out:
        out.write('{"text": "good", "new": 3}\n')
    assert predict(release, rows, tmp_path / "out.parquet", 1) == 0
    schema = pq.read_schema(tmp_path / "out.parquet")
    types = {name: str(schema.field(name).type) for name in ("price", "note", "empty", "new")}
    assert types == {"price": "double", "note": "string", "empty": "string", "new": "int64"}
    told = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (told[0]["tags"], told[-2]["tags"], told[-1]["tags"]) == ([], [{"start": 1}], None)
    assert (told[0]["new"], told[-1]["new"]) == (None, 3)


@pytest.mark.parametrize(
    ("suffix", "more", "said"),
    [
        ("csv", '{"text": "good", "new": 3}', "the column 'new'"),
        ("parquet", '{"text": "good", "note": 3}', "Parquet cannot"),
    ],
)
def test_a_late_row_that_fits_no_column_is_refused_and_leaves_nothing(
    release: Path,
    tmp_path: Path,
    suffix: str,
    more: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = mixed(tmp_path / "rows.jsonl")
    text = rows.read_text(encoding="utf-8").replace('"note": null', '"note": "a"')
    rows.write_text(text + more + "\n", encoding="utf-8")
    assert predict(release, rows, tmp_path / f"out.{suffix}", 1) == 2
    told = capsys.readouterr().err
    assert said in told and "written as .jsonl" in told.replace("write such rows", "written")
    assert kept(tmp_path) == ["rows.jsonl"]


def interrupted(monkeypatch: pytest.MonkeyPatch, release: Path, rows: Path, out: Path) -> None:
    """A run that ends when all is done but the last step."""

    def stop(parts: Parts) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "publish", stop)
        assert predict(release, rows, out, 1) == 130


@pytest.mark.parametrize("what", ["release", "file of rows"])
def test_what_is_left_of_another_run_is_not_used(
    release: Path,
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"text": "good film"}\n', encoding="utf-8")
    interrupted(monkeypatch, release, rows, out)
    if what == "release":
        release = seal.sign(write_release(tmp_path / "other", labels=3)).folder
    else:
        rows.write_text('{"text": "cold plot"}\n', encoding="utf-8")
    assert predict(release, rows, out, 1) == 0
    told = capsys.readouterr().err
    assert f"starting afresh, as an interrupted run had another {what}" in told
    assert "going on" not in told
    [row] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row["text"] == ("good film" if what == "release" else "cold plot")
    assert len(row["scores"]) == (3 if what == "release" else 2)


def test_a_part_that_is_not_whole_is_made_again(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = write_rows(tmp_path / "rows.csv", PART_ROWS + 9), tmp_path / "out.csv"
    assert predict(release, rows, out, 1) == 0
    wanted = out.read_bytes()
    out.unlink()
    interrupted(monkeypatch, release, rows, out)
    [first] = tmp_path.glob("out.csv.parts/*/part-000000")
    os.truncate(first, 100)
    [done] = tmp_path.glob("out.csv.parts/*/done.jsonl")
    done.write_text(done.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert predict(release, rows, out, 1) == 0
    assert out.read_bytes() == wanted


def test_two_runs_do_not_write_one_file(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = write_rows(tmp_path / "rows.csv", 9), tmp_path / "out.csv"
    with begun(out, {}, silent) as parts:
        assert predict(release, rows, out, 1) == 2
        assert f"process {os.getpid()}) is writing {out}" in capsys.readouterr().err
        assert parts.folder.is_dir()
    assert predict(release, rows, out, 1) == 0


def test_a_file_none_of_whose_rows_can_be_answered_is_refused(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\na film, and more\nanother, too\n", encoding="utf-8")
    assert main(["predict", str(release), str(rows)]) == 2
    told = capsys.readouterr().err
    assert "None of the 2 rows could be answered: line 2: it has 2 fields" in told
    assert kept(tmp_path) == ["rows.csv"]


@pytest.mark.parametrize("processes", [0, 65])
def test_processes_that_cannot_be_are_refused(
    release: Path, tmp_path: Path, processes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.csv", 9)
    assert predict(release, rows, tmp_path / "out.csv", processes) == 2
    assert f"--processes takes 1 to 64; got {processes}" in capsys.readouterr().err
    assert kept(tmp_path) == ["rows.csv"]


def test_progress_says_how_much_there_is_and_what_is_left(
    release: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(release, many, tmp_path / "out.csv", 1) == 0
    told = next(line for line in capsys.readouterr().err.splitlines() if "left" in line)
    done, total = told.split()[1].split("/")
    assert int(done.replace(",", "")) == PART_ROWS
    assert int(total.replace(",", "")) == pytest.approx((PARTS - 1) * PART_ROWS, rel=0.2)
    assert "rows_per_s" in told


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_how_far_a_file_is_read_is_known(release: Path, tmp_path: Path, suffix: str) -> None:
    rows = tmp_path / f"rows.{suffix}"
    assert predict(release, write_rows(tmp_path / "from.csv", PART_ROWS), rows, 1) == 0
    opened = open_rows(rows)
    shares = [opened.extent.share for _ in opened.batches(PART_ROWS // 4)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1], abs=0.1)
    assert opened.extent.share == 1
