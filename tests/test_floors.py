"""The house stands on its floors: imports go down only, and files stay small."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

import modelyard

ROOT = Path(modelyard.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if "migrations" not in path.parts  # run by alembic alone, and never changed once written
}
FLOORS = {
    "core": 0,
    **dict.fromkeys(("client", "data", "ledger", "models", "runtime"), 1),
    **dict.fromkeys(("inputs", "targets", "checks"), 2),
    **dict.fromkeys(("stages", "service"), 3),
    **dict.fromkeys(("cli", "doors", "serving", "__main__", ""), 4),
}
LIGHT = (
    "core",
    "ledger",
    "inputs",
    "targets",
    "runtime",
    "service",
    "cli",
    "client",
    "doors",
    "serving",
    "",
)
HEAVY = {"torch", "transformers", "sklearn", "peft", "scipy", "pandas", "matplotlib", "onnx"}


def room(module: str) -> str:
    return (module + ".").split(".")[1]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & FILES.keys()) or {str(node.module)}
    return names


def at_import_time(tree: ast.Module) -> set[str]:
    """What importing a module imports: all but the bodies of its functions."""
    later = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    within = {id(node) for function in later for node in ast.walk(function)}
    now = [node for node in ast.walk(tree) if id(node) not in within]
    return {name for node in now if isinstance(node, ast.stmt) for name in _direct(node)}


def _direct(node: ast.stmt) -> set[str]:
    return imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else set()


TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in FILES.items()}
INNER = {module: imported(tree) & FILES.keys() for module, tree in TREES.items()}


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_down_only(module: str) -> None:
    here = room(module)
    for other in INNER[module]:
        there = room(other)
        wired = FLOORS[here] == 4  # the doors: the only floor on which rooms know each other
        assert wired or here == there or FLOORS[there] < FLOORS[here], f"{module} imports {other}"


def test_there_is_no_import_cycle() -> None:
    graph = {module: inner - {module} for module, inner in INNER.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_stay_under_500_lines(module: str) -> None:
    assert len(FILES[module].read_text("utf-8").splitlines()) <= 500


def test_functions_stay_short() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    lines = [
        int(node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]
    assert median(lines) <= 10
    assert max(lines) <= 45


@pytest.mark.parametrize("module", sorted(m for m in FILES if room(m) in LIGHT))
def test_what_serves_names_nothing_heavy_at_import(module: str) -> None:
    roots = {name.partition(".")[0] for name in at_import_time(TREES[module])}
    assert not roots & HEAVY


def test_what_serves_loads_nothing_heavy() -> None:
    """The same, through everything that is imported on the way."""
    light = sorted(m for m in FILES if room(m) in LIGHT and not m.endswith("__main__"))
    program = f"""
import importlib, sys
for module in {light}:
    importlib.import_module(module)
    heavy = {HEAVY} & sys.modules.keys()
    assert not heavy, (module, heavy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_core_is_the_standard_library_and_pydantic() -> None:
    allowed = sys.stdlib_module_names | {"pydantic", "modelyard"}
    for module in (m for m in FILES if room(m) == "core"):
        roots = {name.partition(".")[0] for name in imported(TREES[module])}
        assert roots <= allowed, module
