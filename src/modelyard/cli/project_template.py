"""The commented project file that `new` writes."""

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from modelyard.core.project import Compress, Data, ReleaseTerms, Serve, Split, Train

COMMENT_COLUMN = 34
SHOWN = {  # of keys without a default
    "epochs": "2",
    "learning_rate": "0.0001",
    "query": '"SELECT ..."',
}


@dataclass(frozen=True)
class Proposed:
    """What a new project starts from."""

    rows: str
    input_column: str
    target_column: str
    backbone: str
    rows_license: str
    why: str
    kind: str = "text"


def project_text(name: str, proposed: Proposed) -> str:
    """A project file in which every key stands, those at their default as comments."""
    lines = [
        "# A Modelyard project. Lines that begin with # are the defaults; each key has a page in",
        "# docs/project/. Try `modelyard plan` to see what would run.",
        f"name = {_own(project_name(name))}",
        "",
        "[data]",
        _line(f"rows = {_own(proposed.rows)}", Data.model_fields["rows"].description),
        *_defaults(Data, skip=("rows", "split")),
        "",
        "[data.split]",
        *_defaults(Split),
        "",
        "[inputs]",
        _line(
            f'{own_key(proposed.input_column)} = "{proposed.kind}"',
            "a column going in, and its kind",
        ),
        "",
        "[target]",
        _line(f"column = {_own(proposed.target_column)}", "the column to predict"),
        _line('kind = "class"', "one of several labels; or labels, or number"),
        "",
        "[backbone]",
        _line(
            f"{proposed.kind} = {_own(proposed.backbone)}", "a known name, a Hub id, or a folder"
        ),
        "",
        "[train]",
        *_defaults(Train),
        "",
        "[compress]",
        *_defaults(Compress),
        "",
        "[accept]",
        "# No release unless all of it holds; every measure of the report can stand here.",
        '# accuracy = ">= 0.8"',
        '# latency_p95_ms = "<= 50"',
        "",
        "[release]",
        *_defaults(ReleaseTerms, skip=("rows_license",)),
        _line(f"rows_license = {_own(proposed.rows_license)}", "licence of the rows"),
        "",
        "[serve]",
        *_defaults(Serve),
    ]
    return "\n".join(lines) + "\n"


def project_name(folder: str) -> str:
    """A folder's name as a project's name.

    >>> project_name("My Reviews!")
    'my-reviews'
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.lower()).strip("-._")
    return name[:63] or "project"


def own_key(column: str) -> str:
    """A column's name as a TOML key.

    >>> own_key("text"), own_key("the text")
    ('text', '"the text"')
    """
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", column)
    return column if bare else json.dumps(column, ensure_ascii=False)


def _own(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _defaults(section: type[BaseModel], skip: tuple[str, ...] = ()) -> list[str]:
    return [
        _line(f"# {name} = {_sh_own(name, field.default)}", field.description)
        for name, field in section.model_fields.items()
        if name not in skip
    ]


def _sh_own(name: str, default: Any) -> str:
    if default is None:
        return SHOWN.get(name, '"column"')
    return json.dumps(default)


def _line(setting: str, comment: str | None) -> str:
    return f"{setting:<{COMMENT_COLUMN - 2}}  # {comment}"
