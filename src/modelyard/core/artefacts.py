"""Artefacts: finished folders, whole or absent, and the record beside each."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

ROW = "_row"
"""The column of a Dataset with the row's number in the source, counted from 1."""


class Manifest(BaseModel):
    """What is known of an artefact: its causes, its content, and where it was made.

    `key` hashes the causes; `digest` hashes the content. `record` holds what was measured
    (seconds, versions, machine) and is part of neither.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    version: str
    key: str
    digest: str
    files: dict[str, str]
    """Relative POSIX path to the SHA-256 of the file."""
    sizes: dict[str, int]
    causes: dict[str, Any]
    record: dict[str, Any]


@dataclass(frozen=True)
class Artefact:
    """A finished folder: read it, never write to it."""

    folder: Path
    manifest: Manifest | None = None

    def read_json(self, name: str) -> Any:
        """The JSON file `name` of this artefact."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


class Dataset(Artefact):
    """Rows in three parts: train.parquet, validation.parquet, test.parquet.

    Beside them data-report.json, and refused.jsonl with what was left out and why.
    Each part has the columns of the rows that the project names, as they came, and `_row`, the
    row's number in the source, counted from 1.
    """

    def part(self, name: str) -> Path:
        """The Parquet file of `train`, `validation` or `test`."""
        return self.folder / f"{name}.parquet"


class ColumnState(BaseModel):
    """A column of a model: its kind, and what was learned from the training split."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: str
    kind: str
    state: dict[str, Any]


class ModelSpec(BaseModel):
    """model.json of a Model or Release: everything needed to predict with its graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = 1
    name: str = ""
    version: str = ""
    """Name and version are the release's; before it they are empty."""
    inputs: list[ColumnState]
    target: ColumnState
    candidate: ColumnState | None = None
    """The text a candidate is told by, where answers are picked from such.

    It is the first text of the inputs, or, where they have none, one that no row has.
    """
    graph: str | None = None
    """The graph's file, relative; None before compress."""
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """What computes the graph soonest, where it was measured."""

    @property
    def columns(self) -> list[ColumnState]:
        """What the network reads: the inputs, and a candidate's text where it is none of them."""
        return [*self.inputs, *filter(None, [self.candidate if self.unasked else None])]

    @property
    def unasked(self) -> list[str]:
        """The names of the columns that no row has."""
        own = [each.column for each in self.inputs]
        return [c.column for c in filter(None, [self.candidate]) if c.column not in own]


class Model(Artefact):
    """A trained network in Hugging Face form, with model.json; after compress with a graph.

    training.json holds the decisions and the history of training, seen.npy the digests
    (uint64) of every row it has learned from.
    """

    @cached_property
    def spec(self) -> ModelSpec:
        """What is needed to predict with this model."""
        return ModelSpec.model_validate(self.read_json("model.json"))


class Report(Artefact):
    """The audit: report.html for people, report.json for programs, predictions.parquet."""

    @cached_property
    def verdict(self) -> list[dict[str, Any]]:
        """Each limit of [accept]: name, limit, value, low, high, holds."""
        verdict: list[dict[str, Any]] = self.read_json("report.json")["verdict"]
        return verdict


class Release(Artefact):
    """A signed folder that can be served, and that loads with transformers as it is."""
