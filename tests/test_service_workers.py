"""Several workers behind one port: one address, one count of everything, replaced when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.service_host import COLUMN, serving, signed, write_release

PREDICT = "/v1/models/tiny/predict"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release, as `serve` takes it."""
    return signed(write_release(tmp_path_factory.mktemp("made") / "release"))


def ask(url: str, rows: int = 1) -> httpx.Response:
    body = {"rows": [{COLUMN: "good film"}] * rows}
    return httpx.post(f"{url}{PREDICT}", json=body, timeout=20, trust_env=False)


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", trust_env=False, timeout=20).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def children(parent: int) -> set[int]:
    told = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return {int(each) for each in told.split()}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_answer_at_one_address_and_count_together(release: Path) -> None:
    with serving(release, "--workers", "2") as (parent, url):
        assert len(children(parent.pid)) == 2
        assert all(ask(url).status_code == 200 for _ in range(24))  # a connection each
        assert metric(url, "modelyard_rows_total") == 24
        until(lambda: metric(url, "modelyard_admitted_rows") == 0)  # told by each twice a second
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        assert parent.stderr is not None
        assert parent.stderr.read() == ""


def test_a_worker_that_dies_is_replaced_and_what_it_counted_stays(release: Path) -> None:
    with serving(release, "--workers", "2") as (parent, url):
        assert ask(url, 3).status_code == 200
        first = children(parent.pid)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(children(parent.pid) - {victim}) == 2)
        until(lambda: ask(url).status_code == 200)
        assert metric(url, "modelyard_rows_total") >= 4


def test_workers_end_with_a_parent_that_is_killed(release: Path) -> None:
    with serving(release, "--workers", "2") as (parent, url):
        own = children(parent.pid)
        parent.kill()
        until(lambda: not any(map(is_running, own)))
        with pytest.raises(httpx.ConnectError):
            ask(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "0"), "--workers takes 1 to 64; got 0"),
        (("--workers", "65"), "--workers takes 1 to 64; got 65"),
        (("--threads", "0"), "--threads takes 1 to"),
        (("--workers", "2", "--host", "no.such.host"), "Cannot listen on 'no.such.host'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    release: Path, options: tuple[str, ...], said: str
) -> None:
    words = [sys.executable, "-m", "modelyard", "serve", str(release), "--port", "0", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_release_that_cannot_be_served_is_told_once(release: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "modelyard", "serve", "--dev", str(tmp_path), "--workers", "2"]
    done = subprocess.run(
        [*words, "--port", "0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("There is no release") == 1


def test_another_crew_is_refused_where_one_listens(release: Path) -> None:
    with serving(release, "--workers", "2") as (_, url):
        port = url.rpartition(":")[2]
        words = [sys.executable, "-m", "modelyard", "serve", "--dev", str(release), "--port", port]
        done = subprocess.run(
            [*words, "--workers", "2"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "Cannot listen" in done.stderr
        assert ask(url).status_code == 200
