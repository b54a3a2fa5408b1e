"""The project file: the one TOML file a user writes.

Every key has a default but `name`, `[data]`, `[inputs]` and `[target]`. Each key has a page
in docs/project/. The descriptions below are what `modelyard new` writes as comments.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from modelyard.core import rungs

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
PROJECT_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
LIMIT = re.compile(r"^(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)$")


class Section(BaseModel):
    """A table of the project file; unknown keys are refused."""

    # strict: `epochs = true` is a slip of the pen, not one epoch
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Split(Section):
    """How rows are parted into training, validation and test."""

    test: Share = Field(0.2, description="share of rows kept for the audit")
    validation: Share = Field(0.1, description="share of rows that steer training")
    by: Name | None = Field(
        None, description="column whose shares each part keeps; default: target"
    )
    group: Name | None = Field(None, description="column whose equal values stay on one side")
    time: Name | None = Field(None, description="column to sort by: the newest rows are the test")
    given: Name | None = Field(
        None, description="column that says it: train, validation or test; no shares count then"
    )
    seed: Seed = Field(42, description="seed of the split")

    @model_validator(mode="after")
    def _one_way(self) -> "Split":
        if sum(way is not None for way in (self.by, self.group, self.time, self.given)) > 1:
            raise ValueError("choose one of by, group, time and given")
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together must leave rows to train on")
        return self


class Data(Section):
    """Where the rows come from and how they are read."""

    rows: str = Field(
        description="csv, tsv, jsonl, parquet, conll, a folder, hf://dataset, or SQL URL"
    )
    query: str | None = Field(None, description="the SQL query, where rows is a database URL")
    encoding: str = Field("auto", description="auto detects it and says so")
    split: Split = Field(default_factory=lambda: Split.model_validate({}))
    max_characters: int = Field(100_000, ge=1, description="a longer text is an error")
    near_duplicates: Literal["keep", "refuse"] = Field(
        "keep", description="what to do with almost equal rows"
    )


def _as_table(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class InputColumn(BaseModel):
    """One column going in: a kind, and that kind's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = Field(description="text, number or category")

    @property
    def options(self) -> dict[str, Any]:
        """What was written beside `kind`."""
        return dict(self.__pydantic_extra__ or {})


class TargetColumn(Section):
    """The answer coming out."""

    column: str = Field(description="the column to predict")
    kind: str = Field("class", description="class, labels, number, spans or match")
    candidates: str | None = Field(
        None, description="match: file of candidates (text, id); default: those the rows name"
    )
    pool: str | None = Field(
        None, description="match: column with the candidates a row is audited among; default: all"
    )
    seen: str | None = Field(
        None, description="match: column with candidates that a row has, which are no answers to it"
    )


class BackboneChoice(Section):
    """The pre-trained network to start from."""

    text: str = Field("minilm", description="a known name, a Hub id, or a folder")
    image: str = Field("efficientnet-lite0", description="a known name, a Hub id, or a folder")
    table: Literal["auto", "network", "trees"] = Field(
        "auto", description="what learns numbers and categories: network, trees, or auto tries both"
    )


class Train(Section):
    """How the weights are moved."""

    method: Literal["full", "head", "lora"] = Field("full", description="full, head or lora")
    minutes: float = Field(0.0, ge=0, description="a time budget; 0 = as many epochs as there are")
    epochs: int | None = Field(
        None, ge=1, description="passes over the rows, at most; default: more where they are few"
    )
    batch_rows: int = Field(32, ge=1, description="rows in a step, on average")
    learning_rate: float | None = Field(None, gt=0, description="default: by method")
    warmup: Share = Field(0.1, description="share of the steps with a rising rate")
    weight_decay: float = Field(0.01, ge=0, description="L2, decoupled as in AdamW")
    dropout: Share = Field(0.1, description="in the layers and before the last one")
    clip_norm: float = Field(1.0, ge=0, description="gradient norm limit; 0 disables")
    class_weights: Literal["none", "balanced"] = Field("none", description="none or balanced")
    label_smoothing: Share = Field(0.1, description="share of the truth spread over all classes")
    patience: int = Field(2, ge=0, description="epochs clearly worse before a stop; 0 disables")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto, fp32 or bf16")
    lora_rank: int = Field(16, ge=1, description="rank of the LoRA matrices")
    backward: Literal["all", "sampled"] = Field(
        "all", description="rows with a backward pass: all, or sampled by their gradient"
    )
    seed: Seed = Field(7, description="the same seed gives the same weights")


def _rung(value: str) -> str:
    if value != rungs.AUTO and (wrong := rungs.problem(value)):
        raise ValueError(wrong)
    return value


RungTarget = Annotated[str, AfterValidator(_rung)]


class Compress(Section):
    """How the model is made small."""

    target: RungTarget = Field(
        "int8", description="int8, fp32, another rung such as layers-3+int8, or auto: the cheapest"
    )
    max_loss: Share = Field(0.01, description="share of the measure that may be lost")
    minutes: float = Field(
        0.0, ge=0, description="a time budget for each smaller network; 0 = until it learns no more"
    )
    unlabelled: str | None = Field(
        None, description="a file of rows without answers, which teach smaller networks too"
    )


def _limit(value: Any) -> Any:
    if not isinstance(value, str) or not LIMIT.match(value.strip()):
        raise ValueError('write a limit as ">= 0.9" or "<= 20"')
    return value.strip()


Limit = Annotated[str, BeforeValidator(_limit)]


def _version(value: str) -> str:
    if not VERSION.match(value):
        raise ValueError("takes letters, digits, '.', '_', '+' and '-', at most 64")
    return value


Version = Annotated[str, AfterValidator(_version)]


class ReleaseTerms(Section):
    """What the release is for and says of itself."""

    version: Version = Field("1", description="the release's version, as the API shows it")
    use: Literal["any", "commercial", "research"] = Field(
        "any", description="checked against the licences of backbone and rows; any = no check"
    )
    license: str = Field("other", description="licence of the release, as Hugging Face names it")
    rows_license: str = Field("unknown", description="licence of the rows")


class Serve(Section):
    """Limits of the API."""

    max_rows: int = Field(1024, ge=1, description="rows in one request")
    max_characters: int = Field(100_000, ge=1, description="characters in one text")
    max_body_bytes: int = Field(8_000_000, ge=1, description="bytes in one request body")
    unflagged: list[Name] = Field(
        [], description="labels that are no finding to /v1/moderations, such as ok"
    )
    keep: float = Field(
        0.0, ge=0, le=1, description="share of answered requests whose rows and answers are kept"
    )
    keep_redacted: bool = Field(
        True, description="whether what is kept loses what is personal by its form"
    )
    keep_days: float = Field(30.0, gt=0, le=3650, description="days after which that is deleted")


class Cost(Section):
    """What computing costs, so that figures can be told in money."""

    core_hour: float = Field(
        0.04, ge=0, description="price of one processor core for an hour, in your currency"
    )


class Project(Section):
    """A project file, read and checked."""

    name: str = Field(pattern=PROJECT_NAME, description="lower-case name")
    data: Data
    inputs: dict[str, Annotated[InputColumn, BeforeValidator(_as_table)]] = Field(min_length=1)
    target: TargetColumn
    backbone: BackboneChoice = Field(default_factory=lambda: BackboneChoice.model_validate({}))
    train: Train = Field(default_factory=lambda: Train.model_validate({}))
    compress: Compress = Field(default_factory=lambda: Compress.model_validate({}))
    accept: dict[str, Limit] = Field(default_factory=dict)
    release: ReleaseTerms = Field(default_factory=lambda: ReleaseTerms.model_validate({}))
    serve: Serve = Field(default_factory=lambda: Serve.model_validate({}))
    cost: Cost = Field(default_factory=lambda: Cost.model_validate({}))
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder that relative paths of the file start from."""
        return self._folder

    def part(self, *sections: str) -> dict[str, Any]:
        """The named sections, resolved, as plain JSON: what a stage's key is made of."""
        resolved = self.model_dump(mode="json")
        return {section: resolved[section] for section in sections}
