"""The commented project file that `new` writes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from pydantic import BaseModel

from modelyard.core.project import (
    BackboneChoice,
    Compress,
    Cost,
    Data,
    ReleaseTerms,
    Serve,
    Split,
    TargetColumn,
    Train,
)
from modelyard.data.proposal import Proposal

COMMENT_COLUMN = 34
SHOWN = {  # of keys without a default
    "epochs": "2",
    "learning_rate": "0.0001",
    "query": '"SELECT ..."',
}
MEANINGS = {
    "class": "one of several labels",
    "labels": "any of several labels",
    "number": "an amount, with an interval",
    "spans": "pieces of the text, each with a label",
    "match": "the best of many candidates",
}
MEASURES = {"labels": "micro_f1", "number": "r2", "spans": "entity_f1", "match": "recall_at_1"}
"""One to be limited, by the kind of target."""


@dataclass(frozen=True)
class Proposed:
    """What a new project starts from."""

    rows: str
    rows_license: str
    proposal: Proposal


def project_text(name: str, proposed: Proposed) -> str:
    """A project file in which every key stands, those at their default as comments."""
    proposal = proposed.proposal
    own = proposal.settings
    lines = [
        "# A Modelyard project. Lines that begin with # are the defaults; each key has a page in",
        "# docs/project/. Try `modelyard plan` to see what would run.",
        f"name = {_own(project_name(name))}",
        "",
        "[data]",
        *_keys(Data, {"rows": proposed.rows}, skip=("split",)),
        "",
        "[data.split]",
        *_keys(Split, own.get("data.split", {})),
        "",
        "[inputs]",
        *_inputs(proposal),
        "",
        "[target]",
        *_target(proposal),
        "",
        "[backbone]",
        *_keys(BackboneChoice, proposal.backbone),
        "",
        "[train]",
        *_keys(Train, own.get("train", {})),
        "",
        "[compress]",
        *_keys(Compress, own.get("compress", {})),
        "",
        "[accept]",
        "# No release unless all of it holds; every measure of the report can stand here.",
        f'# {MEASURES.get(proposal.kind, "accuracy")} = ">= 0.8"',
        '# latency_p95_ms = "<= 50"',
        "",
        "[release]",
        *_keys(ReleaseTerms, {"rows_license": proposed.rows_license}),
        "",
        "[serve]",
        *_keys(Serve, {}),
        "",
        "[cost]",
        *_keys(Cost, {}),
    ]
    return "\n".join(lines) + "\n"


def _inputs(proposal: Proposal) -> list[str]:
    """The columns going in, and as comments those that could."""
    said = chain(["a column going in, and its kind"], repeat(""))
    lines = [f"{own_key(name)} = {_own(kind)}" for name, kind in proposal.inputs.items()]
    others = [f"# {own_key(name)} = {_own(kind)}" for name, kind in proposal.others.items()]
    return [
        *map(_line, lines, said),
        *map(_line, others, chain(["could go in too"], repeat(""))),
    ]


def _target(proposal: Proposal) -> list[str]:
    """Column and kind, and what else the proposal says of the target."""
    fields = TargetColumn.model_fields
    return [
        _line(f"column = {_own(proposal.target)}", fields["column"].description),
        _line(f"kind = {_own(proposal.kind)}", MEANINGS.get(proposal.kind, "what the answer is")),
        *(
            _line(f"{name} = {_own(value)}", fields[name].description)
            for name, value in proposal.settings.get("target", {}).items()
        ),
    ]


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
    return column if bare else _own(column)


def _own(value: Any) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _keys(section: type[BaseModel], own: Mapping[str, Any], skip: Sequence[str] = ()) -> list[str]:
    """The keys of a section: those that are set, and the others as comments."""
    return [
        _line(f"{name} = {_own(own[name])}", field.description)
        if name in own
        else _line(f"# {name} = {_shown(name, field.default)}", field.description)
        for name, field in section.model_fields.items()
        if name not in skip
    ]


def _shown(name: str, default: Any) -> str:
    if default is None:
        return SHOWN.get(name, '"column"')
    return _own(default)


def _line(setting: str, comment: str | None) -> str:
    return f"{setting:<{COMMENT_COLUMN - 2}}  # {comment}" if comment else setting
