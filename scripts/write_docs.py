"""Write into docs/ what comes from the code: help texts, keys, lists of pages.

What stands between two markers is written here; what stands around them is written by people.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelyard.cli.main import COMMANDS, parser
from modelyard.core import errors
from modelyard.core.project import Project

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- from the code: scripts/docs writes this -->", "<!-- end -->"
TO_WRITE = "TO WRITE"


def main() -> int:
    """Write every page, or with --check name those that are out of date."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing")
    check = arguments.parse_args().check
    stale = [path for path, text in pages() if _text(path) != text]
    for path, text in pages():
        if path in stale and not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(DOCS.parent)} {'is out of date' if check else 'written'}")
    if stale and check:
        print("run scripts/docs and commit what it writes")
    return 1 if stale and check else 0


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that has something from the code, as it should be."""
    for path, title, written in (*_commands(), *_keys(), *_errors(), *_lists()):
        text = _text(path) or f"# {title}\n\n{BEGIN}\n{END}\n\n{TO_WRITE}\n"
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        yield path, f"{before}{BEGIN}\n{written}\n{END}{after}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _commands() -> Iterator[tuple[Path, str, str]]:
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    subparsers: Any = next(a for a in parser()._actions if a.dest == "command")
    for name in COMMANDS:
        text = subparsers.choices[name].format_help().rstrip()
        yield DOCS / "commands" / f"{name}.md", f"modelyard {name}", f"```text\n{text}\n```"


def keys() -> dict[str, tuple[FieldInfo, str]]:
    """Every key of the project file, with its field and its default as TOML would have it."""
    return dict(_keys_of(Project, ""))


def _keys_of(model: type[BaseModel], above: str) -> Iterator[tuple[str, tuple[FieldInfo, str]]]:
    for name, field in model.model_fields.items():
        table = _table_in(field.annotation)
        if name == "accept" or table is None:
            yield f"{above}{name}", (field, _default(field))
        else:
            yield from _keys_of(table, f"{above}{name}.")


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_table_in(each) for each in get_args(annotation))
    return next((each for each in inner if each), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: it must be given"
    value = field.default
    if value is None or field.default_factory:
        return "not set"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _keys() -> Iterator[tuple[Path, str, str]]:
    for key, (field, default) in keys().items():
        said = field.description or "limits that a release must hold, by the name of the measure"
        written = f"| | |\n|---|---|\n| what | {said} |\n| default | {default} |"
        allowed = _allowed(field)
        written += f"\n| allowed | {allowed} |" if allowed else ""
        yield DOCS / "project" / f"{key}.md", f"`{key}`", written


def _allowed(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f'`"{choice}"`' for choice in choices)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return " and ".join(found)


def error_classes(root: type[errors.ModelyardError]) -> Iterator[type[errors.ModelyardError]]:
    """The classes of errors that are raised: those without a class below them."""
    below = [each for each in root.__subclasses__() if each.__module__ == errors.__name__]
    for each in below:
        yield from error_classes(each)
    if not below:
        yield root


def _errors() -> Iterator[tuple[Path, str, str]]:
    for each in error_classes(errors.ModelyardError):
        written = f"{each.__doc__}\n\nCode `{each.code}`, exit status {each.exit_status}."
        yield DOCS / "errors" / f"{each.code}.md", each.__name__, written


def _lists() -> Iterator[tuple[Path, str, str]]:
    commands = [(name, _summary(name)) for name in COMMANDS]
    yield _list("commands", "Commands", commands)
    told = [
        (key, field.description or "limits that must hold") for key, (field, _) in keys().items()
    ]
    yield _list("project", "The project file", told)
    classes = error_classes(errors.ModelyardError)
    yield _list("errors", "Errors", [(each.code, str(each.__doc__)) for each in classes])


def _summary(command: str) -> str:
    module = importlib.import_module(f"modelyard.cli.{command}")
    return str(module.__doc__).splitlines()[0]


def _list(folder: str, title: str, entries: list[tuple[str, str]]) -> tuple[Path, str, str]:
    lines = [f"- [`{name}`]({name}.md): {said}" for name, said in entries]
    return DOCS / folder / "README.md", title, "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
