"""The README: every block of code in it is run, or read as what it says it is."""

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from modelyard.cli.main import parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str = "") -> list[str]:
    found = BLOCK.findall(page.read_text("utf-8"))
    return [text for name, text in found if language in ("", name)]


def of_all_pages(language: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


def command_lines(block: str) -> list[list[str]]:
    return [line.split() for line in block.replace("\\\n", " ").splitlines()]


def test_both_languages_show_the_same_code() -> None:
    assert blocks(ROOT / "README.md") == blocks(ROOT / "README.zh-CN.md")


@pytest.mark.parametrize("block", of_all_pages("sh"))
def test_a_command_line_is_one_that_modelyard_or_make_takes(block: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for words in command_lines(block):
        if words[0] == "modelyard":
            parser().parse_args(words[1:])
        elif words[0] == "make":
            assert set(words[1:]) <= set(targets)
        else:
            assert words[0] in (".", "curl", "python", "printf"), words


@pytest.mark.parametrize("block", of_all_pages("python"))
def test_a_block_of_python_can_be_read(block: str) -> None:
    ast.parse(block)


@pytest.mark.parametrize("block", of_all_pages("json"))
def test_a_block_of_json_can_be_read(block: str) -> None:
    json.loads(block)


SAID = {
    "billing": ("I was charged twice for {}", "the invoice for {} is wrong", "refund my {}"),
    "delivery": ("my {} has not arrived", "the parcel with {} is lost", "when will {} be sent"),
}
THINGS = ("the lamp", "two chairs", "order 4711", "the blue coat", "my subscription", "the desk")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the rows that the README speaks of."""
    draw = random.Random(5)
    lines = {
        f'"{draw.choice(said).format(thing)}, {number}",{topic}'
        for topic, said in SAID.items()
        for number, thing in enumerate(THINGS * 10)
    }
    (tmp_path / "tickets.csv").write_text("\n".join(["message,topic", *sorted(lines)]) + "\n")
    (tmp_path / "new-tickets.csv").write_text("message\nwhere is my lamp\n")
    return tmp_path


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(folder: Path, dev: bool = True) -> Iterator[str]:
    command = [sys.executable, "-m", "modelyard", "serve", "support", "--port", "0"]
    command += ["--dev"] * dev
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


def customers_of(service: str, folder: Path) -> None:
    """What the README shows of keys and usage, in its order."""
    *made, serve, usage = service.splitlines()
    assert serve == "modelyard serve support"
    [key] = [line for each in made for line in run(each, folder).split() if line[:3] == "my_"]
    row = {"rows": [{"message": "my card was charged twice"}]}
    with served(folder, dev=False) as url:
        path = f"{url}/v1/models/support/predict"
        assert httpx.post(path, json=row, trust_env=False).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        reply = httpx.post(path, json=row, headers=headers, trust_env=False)
        assert reply.headers["ratelimit"].startswith('"project-rows-month";r=999999')
    assert "1 requests, 1 rows" in run(usage, folder)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="the README's requests are made with curl")
def test_what_the_readme_shows_is_so(folder: Path) -> None:
    """The rows are few and easy, so that it takes a minute; everything else is real."""
    _, own_rows, service, api = blocks(ROOT / "README.md", "sh")
    activate, *commands, serve = own_rows.splitlines()
    assert activate.endswith("activate")
    assert serve == "modelyard serve --dev support"
    for command in commands:
        run(command, folder)
    assert (folder / "new-tickets.predictions.csv").read_text().count("\n") == 2
    with served(folder) as url:
        model, predictions, ready = [
            json.loads(run(line.replace("http://127.0.0.1:8000", url), folder))
            for line in api.splitlines()
        ]
    assert (model["name"], ready) == ("support", {"ready": True})
    assert predictions["predictions"][0]["label"] == "billing"
    customers_of(service, folder)
    (python,) = blocks(ROOT / "README.md", "python")
    (folder / "example.py").write_text(python)
    told = ast.literal_eval(run("python example.py", folder))
    assert told == predictions["predictions"]
    (project,) = blocks(ROOT / "README.md", "toml")
    (folder / "modelyard.toml").write_text(project)
    assert "prepare" in run("modelyard plan", folder)
