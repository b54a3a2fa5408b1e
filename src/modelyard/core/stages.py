"""Stages: functions from artefacts to an artefact, whose signature is their declaration.

    @stage("train", version="1", reads=("inputs", "target"), gives=Model)
    def train(project: Project, dataset: Dataset, draft: Draft, events: Events) -> None: ...

What a stage takes is read off its annotations, so a plan that lacks something is found before
anything runs.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core import digest
from modelyard.core.artefacts import Artefact
from modelyard.core.project import Project

GIGA = 1_000_000_000


@dataclass(frozen=True)
class Estimate:
    """What a stage is thought to need, before it runs."""

    seconds: float = 1.0
    memory_bytes: int = GIGA // 5
    disk_bytes: int = 0


@dataclass(frozen=True)
class RowFacts:
    """What a quick look at the source says: enough to estimate with."""

    rows: int
    mean_characters: float
    labels: int = 0
    """Different labels that were seen, where rows have such."""
    candidate_characters: float = 0.0
    """Of a candidate's text, where answers are picked from such."""


def no_causes(project: Project) -> dict[str, str]:
    """Nothing but the project file and the artefacts taken."""
    return {}


def small_work(project: Project, facts: RowFacts) -> Estimate:
    """A second or so."""
    return Estimate()


@dataclass(frozen=True)
class Stage:
    """A stage and what it declares."""

    name: str
    version: str
    reads: tuple[str, ...]
    takes: dict[str, type[Artefact]]
    """Parameter name to the type of artefact, in order."""
    gives: type[Artefact]
    run: Callable[..., None]
    causes: Callable[[Project], Mapping[str, str]]
    estimate: Callable[[Project, RowFacts], Estimate]

    def causes_of(self, project: Project, taken: Mapping[str, str]) -> dict[str, Any]:
        """Everything this stage's result depends on; `taken` maps parameters to digests."""
        return {
            "stage": self.name,
            "version": self.version,
            "project": project.part(*self.reads),
            "takes": dict(taken),
            "outside": dict(self.causes(project)),
        }

    def key(self, causes: Mapping[str, Any]) -> str:
        """The hash of causes."""
        return digest.of_json(causes)


def stage(
    name: str,
    *,
    version: str,
    reads: tuple[str, ...],
    gives: type[Artefact],
    causes: Callable[[Project], Mapping[str, str]] = no_causes,
    estimate: Callable[[Project, RowFacts], Estimate] = small_work,
) -> Callable[[Callable[..., None]], Stage]:
    """Declare a function as a stage; see the top of this file."""

    def declare(function: Callable[..., None]) -> Stage:
        hints = inspect.get_annotations(function, eval_str=True)
        takes = {
            parameter: hint
            for parameter, hint in hints.items()
            if isinstance(hint, type) and issubclass(hint, Artefact)
        }
        return Stage(name, version, reads, takes, gives, function, causes, estimate)

    return declare


def unmet(stages: Sequence[Stage]) -> list[str]:
    """What stages take that none before them gives, one sentence each.

    >>> unmet([])
    []
    """
    given: set[type[Artefact]] = set()
    problems = []
    for each in stages:
        for kind in each.takes.values():
            if kind not in given:
                problems.append(f"{each.name} takes a {kind.__name__}, which no stage before gives")
        given.add(each.gives)
    return problems
