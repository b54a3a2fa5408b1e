"""The documentation: each thing has its page, each page its thing, and each says what is so."""

import ast
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import modelyard
from modelyard.cli.main import COMMANDS
from modelyard.core import errors
from modelyard.core.project_file import read_project

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
TEXT_BLOCK = re.compile(r"^```(?:text|json)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "scripts" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITE_DOCS = script()
ERRORS = {each.code: each for each in WRITE_DOCS.error_classes(errors.ModelyardError)}


def pages_in(folder: str) -> set[str]:
    return {path.stem for path in (DOCS / folder).glob("*.md")} - {"README"}


def test_each_command_has_its_page_and_each_page_its_command() -> None:
    assert pages_in("commands") == set(COMMANDS)


def test_each_key_of_the_project_file_has_its_page_and_each_page_its_key() -> None:
    assert pages_in("project") == set(WRITE_DOCS.keys())


def test_each_error_has_its_page_and_each_page_its_error() -> None:
    assert pages_in("errors") == set(ERRORS)


def test_what_comes_from_the_code_is_current() -> None:
    stale = [path.name for path, text in WRITE_DOCS.pages() if path.read_text("utf-8") != text]
    assert stale == [], "run scripts/docs"


def test_a_page_that_is_out_of_date_ends_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(WRITE_DOCS, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    assert WRITE_DOCS.main() == 1
    assert "docs/commands/run.md is out of date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["docs"])
    assert WRITE_DOCS.main() == 0
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    assert WRITE_DOCS.main() == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_written_and_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith("# ")
    assert WRITE_DOCS.TO_WRITE not in text
    for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        place, _, heading = target.partition("#")
        if re.match(r"https?://|mailto:", target):
            continue
        other = (page.parent / place) if place else page
        assert other.exists(), target
        if heading:
            assert heading in headings(other.read_text("utf-8")), target


def headings(text: str) -> set[str]:
    found = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in found}


def toml_blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(TOML_BLOCK.findall(page.read_text("utf-8"))):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("block", [*toml_blocks()])
def test_a_piece_of_a_project_file_can_be_read(block: str, tmp_path: Path) -> None:
    """Each example is a project file, or becomes one with what it lacks."""
    lacking = {
        r"^name\b": 'name = "x"',
        r"^\[data\]|^\[data\.": '[data]\nrows = "a.csv"',
        r"^\[inputs": '[inputs]\ntext = "text"',
        r"^\[target": '[target]\ncolumn = "label"',
    }
    missing = [text for mark, text in lacking.items() if not re.search(mark, block, re.MULTILINE)]
    before = [text for text in missing if not text.startswith("[")]
    after = [text for text in missing if text.startswith("[")]
    file = tmp_path / "modelyard.toml"
    file.write_text("\n".join([*before, block, *after]), encoding="utf-8")
    read_project(file)


def test_every_measure_that_can_be_limited_is_explained() -> None:
    from modelyard import targets
    from modelyard.stages.audit import known_limits

    explained = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "project/accept.md").read_text(), re.M))
    known = {name for kind in targets.MODULES for name in known_limits(targets.find(kind))}
    assert explained == known


def templates() -> dict[str, list[re.Pattern[str]]]:
    """The messages of each error in the source, by its class, as patterns."""
    found = defaultdict(list)
    for path in Path(modelyard.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                found[name].append(pattern(node.args[0]))
    return found


def pattern(message: ast.expr) -> re.Pattern[str]:
    parts = message.values if isinstance(message, ast.JoinedStr) else [message]
    texts = [
        re.escape(p.value) if isinstance(p, ast.Constant) else "(.+)"
        for p in parts
        if not isinstance(p, ast.Constant) or isinstance(p.value, str)
    ]
    return re.compile(re.sub(r"(\\ |\\\n)+", r"\\s+", "".join(texts)), re.DOTALL)


TEMPLATES = templates()


@pytest.mark.parametrize("code", [code for code in ERRORS if code != "project-file-invalid"])
def test_an_errors_page_shows_it_as_it_is_said(code: str) -> None:
    examples = TEXT_BLOCK.findall((DOCS / "errors" / f"{code}.md").read_text("utf-8"))
    said = [each for each in TEMPLATES[ERRORS[code].__name__] if len(each.pattern) > 20]
    assert said, f"{code} is never raised"
    assert examples
    for example in examples:
        text = " ".join(example.split())
        assert f"docs/errors/{code}.md" in text
        assert any(each.search(text) for each in said), text


def test_the_page_of_a_wrong_project_file_shows_what_is_said(tmp_path: Path) -> None:
    page = (DOCS / "errors" / "project-file-invalid.md").read_text("utf-8")
    (block,) = re.findall(r"^```ini\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (example,) = TEXT_BLOCK.findall(page)
    file = tmp_path / "modelyard.toml"
    file.write_text(block, encoding="utf-8")
    with pytest.raises(errors.ProjectFileInvalid) as caught:
        read_project(file)
    assert example.startswith("error: " + str(caught.value).replace(str(file), "modelyard.toml"))


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*")), ids=str)
def test_no_file_of_the_documentation_is_empty(path: Path) -> None:
    assert path.is_dir() or path.stat().st_size > 0
