"""What the service says of the release it serves; the door fills it in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Column:
    """One column going in: its name, its kind, a value to show, and its JSON Schema.

    `datatype` is that of its tensor, whose elements are taken as bytes, and not as text, where
    it `is_binary`. A column that `may_lack` takes null, and one that is `optional` may be left out.
    `values` are those it is known to have, for a list to choose from.
    """

    name: str
    kind: str
    example: Any
    schema: Mapping[str, Any]
    datatype: str = "BYTES"
    is_binary: bool = False
    may_lack: bool = False
    optional: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReleaseInfo:
    """A release as its API describes it.

    `wire` is the pydantic model of one answer. `labels` are the names of its scores, in the
    order of the tensor `scores`; empty where the answer has none. `examples` are rows for the
    try-it page. `report` is the audit's HTML file, if there is one.
    `server_version` is Modelyard's own.
    """

    name: str
    version: str
    columns: tuple[Column, ...]
    target: str
    wire: type[BaseModel]
    labels: tuple[str, ...] = ()
    description: str = ""
    examples: tuple[Mapping[str, Any], ...] = ()
    report: Path | None = None
    server_version: str = "0"

    @property
    def example_row(self) -> dict[str, Any]:
        """A row for the documentation."""
        return {column.name: column.example for column in self.columns}

    def to_json(self) -> dict[str, Any]:
        """The release as GET /v1/models/{name} gives it, without the limits."""
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "inputs": [{"name": column.name, "kind": column.kind} for column in self.columns],
            "target": self.target,
            "labels": list(self.labels),
        }
