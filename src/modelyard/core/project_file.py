"""Reading a project file: TOML in, a Project or every problem at once with its line out."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from modelyard.core import PROJECT_FILE
from modelyard.core.errors import ProjectFileInvalid, ProjectFileMissing, SettingInvalid
from modelyard.core.project import Project

PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*')"""
DOTTED = rf"({PART}(?:\s*\.\s*{PART})*)"
HEADER = re.compile(rf"^\s*\[\[?\s*{DOTTED}\s*\]")
KEY = re.compile(rf"^\s*{DOTTED}\s*=")
LONG_STRING = r"\"\"\"(?:\\.|[^\\])*?\"\"\"|\'\'\'.*?\'\'\'"
OTHER_TEXT = r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'"
TEXTS = re.compile(rf"({LONG_STRING})|{OTHER_TEXT}", re.DOTALL)
SENTENCES = {
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_pattern_mismatch": "takes lower-case letters, digits, '.', '_' and '-', at most 63, "
    "and starts with a letter or a digit",
}
Path_ = tuple[str, ...]


def read_project(path: Path, settings: Sequence[str] = ()) -> Project:
    """Read the project file at `path` (a file, or a folder that holds one).

    `settings` override single keys, as in `train.minutes=3`. Raises ProjectFileMissing,
    ProjectFileInvalid with every problem, SettingInvalid.
    """
    file = path / PROJECT_FILE if path.is_dir() else path
    if not file.is_file():
        raise ProjectFileMissing(
            f"There is no project file at {file}; make one with `modelyard new DIR`."
        )
    text = _text(file)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectFileInvalid(str(file), [f"not TOML: {error}"]) from None
    except RecursionError:
        raise ProjectFileInvalid(str(file), ["its values are nested too deeply"]) from None
    places = {path: f"line {number}" for path, number in lines_of(text).items()}
    for setting in settings:
        places[_override(tables, setting)] = f"--set {setting}"
    project = _validated(tables, file, places)
    project._folder = file.resolve().parent
    return project


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}; save the file as UTF-8"
        raise ProjectFileInvalid(str(file), [problem]) from None


def _override(tables: dict[str, Any], setting: str) -> Path_:
    key, equals, value = setting.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise SettingInvalid(f"--set takes KEY=VALUE such as train.minutes=3; got {setting!r}.")
    for name in names[:-1]:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise SettingInvalid(f"--set {setting}: {name} is a value, not a table.")
    tables[names[-1]] = _value(value.strip())
    return tuple(names)


def _value(text: str) -> Any:
    try:
        tables = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return tables["value"] if len(tables) == 1 else text


def _validated(tables: dict[str, Any], file: Path, places: Mapping[Path_, str]) -> Project:
    try:
        return Project.model_validate(tables)
    except ValidationError as error:
        found = [(_place(each["loc"], places), _sentence(each)) for each in error.errors()]
        found.sort(key=lambda pair: _line_of(pair[0]))
        problems = [f"{place}: {text}" if place else text for place, text in found]
        raise ProjectFileInvalid(str(file), problems) from None


def _sentence(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(keys_at(error["loc"][:-1]))
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where}; {hint}"
    if error["type"] == "missing":
        return f"{where} is missing; it has no default"
    message = SENTENCES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], Mapping) else f" (got {error['input']!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def keys_at(location: Iterable[str | int]) -> list[str]:
    """The keys that a table of the project file knows, by its path.

    >>> keys_at(("data", "split"))
    ['test', 'validation', 'by', 'group', 'time', 'given', 'seed']
    """
    model: type[BaseModel] = Project
    for name in location:
        field = model.model_fields.get(str(name))
        model = _model_in(field.annotation) if field else BaseModel
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return BaseModel


def lines_of(text: str) -> dict[Path_, int]:
    r"""Where each table and key of a TOML text stands, counted from 1.

    >>> lines_of('name = "x"\n[data]\nrows = "a.csv"')
    {('name',): 1, ('data',): 2, ('data', 'rows'): 3}
    """
    lines: dict[Path_, int] = {}
    table: Path_ = ()
    plain = TEXTS.sub(lambda found: "\n" * found[0].count("\n") if found[1] else found[0], text)
    for number, line in enumerate(plain.split("\n"), start=1):
        if header := HEADER.match(line):
            table = _names(header.group(1))
            lines.setdefault(table, number)
        elif key := KEY.match(line):
            lines.setdefault(table + _names(key.group(1)), number)
    return lines


def _names(dotted: str) -> Path_:
    names = []
    rest: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(rest, dict):
        ((name, rest),) = rest.items()
        names.append(name)
    return tuple(names)


def _place(location: Iterable[str | int], places: Mapping[Path_, str]) -> str:
    path = tuple(str(part) for part in location)
    while path and path not in places:
        path = path[:-1]
    return places.get(path, "")


def _line_of(place: str) -> int:
    return int(place.removeprefix("line ")) if place.startswith("line ") else 0
