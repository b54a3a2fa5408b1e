"""The flow: which stages run, which stand already, and running them in order."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelyard.core.artefacts import Artefact, Manifest, Report
from modelyard.core.errors import ModelyardError, RequirementFailed
from modelyard.core.events import Events, StageDone, StageSkipped, StageStarted, Warned
from modelyard.core.project import Project
from modelyard.core.stages import Stage
from modelyard.core.store import Store

RECORDED = ("modelyard", "torch", "transformers", "onnxruntime", "onnx", "numpy", "tokenizers")


@dataclass(frozen=True)
class Step:
    """A stage of a plan: its manifest where it stands, and why it has to run where not."""

    stage: Stage
    manifest: Manifest | None
    why: str


def plan(project: Project, stages: Sequence[Stage], store: Store) -> list[Step]:
    """What would run and what stands, without running anything.

    The key of a stage is known only when everything it takes stands. A stage downstream of one
    that has to run may still be reused, if that one gives the same content as before.
    """
    steps: list[Step] = []
    standing: dict[type[Artefact], Manifest | None] = {}
    for stage in stages:
        missing = _first_missing(stage, steps, standing)
        if missing:
            step = Step(stage, None, f"{missing} runs first")
        else:
            causes = stage.causes_of(project, _digests(stage, standing))
            found = store.manifest(stage.name, stage.key(causes))
            step = Step(stage, found, "made already" if found else _why(stage, causes, store))
        standing[stage.gives] = step.manifest
        steps.append(step)
    return steps


def _first_missing(
    stage: Stage, steps: Sequence[Step], standing: dict[type[Artefact], Manifest | None]
) -> str | None:
    for kind in stage.takes.values():
        if standing.get(kind) is None:
            return next(s.stage.name for s in reversed(steps) if s.stage.gives is kind)
    return None


def _digests(stage: Stage, standing: dict[type[Artefact], Manifest | None]) -> dict[str, str]:
    taken = {name: standing[kind] for name, kind in stage.takes.items()}
    return {name: manifest.digest for name, manifest in taken.items() if manifest}


def _why(stage: Stage, causes: dict[str, Any], store: Store) -> str:
    """What differs from the last time this stage ran."""
    last = store.latest(stage.name)
    if last is None:
        return "not made yet"
    now, then = _flat(causes), _flat(last.causes)
    changed = [name for name in now | then if now.get(name) != then.get(name)]
    return "changed: " + ", ".join(changed[:3]) if changed else "made by another version"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested tables by dotted name.

    >>> _flat({"project": {"train": {"epochs": 3}}, "version": "1"})
    {'train.epochs': 3, 'version': '1'}
    """
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        outer = "" if key in ("project", "outside", "takes") and not name else key
        flat |= _flat(inner, ".".join(part for part in (name, outer) if part))
    return flat


def run(
    project: Project, stages: Sequence[Stage], store: Store, events: Events
) -> dict[str, Artefact]:
    """Run what does not stand; give the artefact of each stage.

    Raises RequirementFailed after an audit that says no; its Report stands in the store.
    """
    made: dict[str, Artefact] = {}
    latest: dict[type[Artefact], Artefact] = {}
    for stage in stages:
        taken = {name: latest[kind] for name, kind in stage.takes.items()}
        artefact = _made(project, stage, taken, store, events)
        made[stage.name] = latest[stage.gives] = artefact
        _require(artefact)
    return made


def _made(
    project: Project, stage: Stage, taken: dict[str, Artefact], store: Store, events: Events
) -> Artefact:
    digests = {name: a.manifest.digest for name, a in taken.items() if a.manifest}
    causes = stage.causes_of(project, digests)
    key = stage.key(causes)
    manifest = store.manifest(stage.name, key)
    if manifest and not store.is_sound(manifest):
        events(Warned(f"{stage.name}: its files were changed since it was made; it is made again."))
        store.set_aside(manifest)
        manifest = None
    if manifest:
        store.use(manifest)
        events(StageSkipped(stage.name, manifest.digest))
    else:
        manifest = _run_stage(project, stage, taken, causes, store, events)
    return stage.gives(store.folder(manifest), manifest)


def _run_stage(
    project: Project,
    stage: Stage,
    taken: dict[str, Artefact],
    causes: dict[str, Any],
    store: Store,
    events: Events,
) -> Manifest:
    key = stage.key(causes)
    why = _why(stage, causes, store)
    with store.draft(stage.name, key) as draft:
        if found := store.manifest(stage.name, key):  # another run was faster
            events(StageSkipped(stage.name, found.digest))
            return found
        events(StageStarted(stage.name, why))
        start = time.monotonic()
        try:
            stage.run(project=project, **taken, draft=draft, events=events)
        except ModelyardError:  # bad input or a failed requirement: there is nothing to go on from
            store.forget(draft)
            raise
        seconds = time.monotonic() - start
        draft.record.update(seconds=round(seconds, 2), **environment())
        manifest = store.publish(draft, stage.name, stage.version, key, causes)
    events(StageDone(stage.name, manifest.digest, round(seconds, 2)))
    return manifest


def _require(artefact: Artefact) -> None:
    if not isinstance(artefact, Report):
        return
    failed = [limit for limit in artefact.verdict if not limit["holds"]]
    if failed:
        told = "; ".join(f"{f['name']} is {f['value']:.4g}, wanted {f['limit']}" for f in failed)
        raise RequirementFailed(
            f"The audit says no, so there is no release: {told}. "
            f"The report says more: {artefact.folder / 'report.html'}"
        )


def environment() -> dict[str, Any]:
    """Versions and machine, recorded beside what was made; never part of a key."""
    versions = {"python": platform.python_version()}
    for package in RECORDED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"system": platform.system(), "processor": processor(), "cores": _cores()}
    return {"versions": versions, "machine": machine}


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
