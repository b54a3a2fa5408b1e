"""What every door does: wire stages, store, inputs, targets and runtime together."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.checks.limits import refuse_unknown
from modelyard.core import PROJECT_FILE, digest
from modelyard.core.artefacts import Artefact, Model, Release
from modelyard.core.errors import ReleaseMissing, RequirementFailed, ResultMissing, SettingInvalid
from modelyard.core.events import Events
from modelyard.core.flow import Step, plan, run
from modelyard.core.licences import licence_problem
from modelyard.core.project import Project
from modelyard.core.project_file import read_project
from modelyard.core.store import Store
from modelyard.runtime.index import Index
from modelyard.runtime.runtime import Runtime
from modelyard.runtime.signing_key import own_key

if TYPE_CHECKING:
    from modelyard.core.stages import RowFacts
    from modelyard.data.files import Record
    from modelyard.service.release_info import Column, ReleaseInfo

STORE = ".modelyard"
RESOLVED = "project.toml"
TRIED_ROWS = 600
"""Rows that a plan tries trees and a network on: a few seconds."""
EXAMPLE_ROWS = 16


def store_of(project: Project) -> Store:
    """The store beside the project file."""
    return Store(project.folder / STORE)


def plan_of(project: Project) -> list[Step]:
    """What `run` would do; problems that would end it late are told now."""
    from modelyard.stages import build_stages

    refuse_early(project)
    return plan(project, build_stages(), store_of(project))


def refuse_early(project: Project) -> None:
    """Raise now what would otherwise end a run late: kinds, limits, names, parts, licences."""
    from modelyard import inputs, targets
    from modelyard.models.backbones import refuse_unknown as refuse_unknown_backbone
    from modelyard.models.known import KNOWN
    from modelyard.stages.audit import known_limits, refuse_no_test
    from modelyard.stages.learner import refuse_trees
    from modelyard.stages.prepare import refuse_names
    from modelyard.stages.train import backbone_names, refuse_still
    from modelyard.stages.unlabelled import refuse_unlabelled

    refuse_names(project)
    for column in project.inputs.values():
        inputs.find(column.kind).options(column.options)
    target = targets.find(project.target.kind)
    has_tokens = {n: inputs.find(column.kind).has_tokens for n, column in project.inputs.items()}
    targets.refuse_pair(target, has_tokens)
    refuse_trees(project)
    refuse_still(project, target)
    refuse_no_test(project)
    refuse_unlabelled(project)
    names = backbone_names(project)
    for kind, name in names.items():
        refuse_unknown_backbone(name, project.folder, kind)
    refuse_unknown(project.accept, known_limits(target))
    licences = {name: KNOWN[name].licence for name in names.values() if name in KNOWN}
    if problem := licence_problem(project, licences):
        raise RequirementFailed(problem)


def facts_of(project: Project) -> "RowFacts":
    """What a quick look at the rows says, for what the stages are thought to need."""
    from modelyard import targets
    from modelyard.data.source import facts
    from modelyard.runtime.columns import is_missing

    target, column = targets.find(project.target.kind), project.target.column
    picks = target.reads == "vectors"

    def names(record: "Record") -> Sequence[str]:
        values, value = record.values, record.values.get(column)
        if record.problem or is_missing(value):
            return ()
        try:
            truth = target.read(value, {name: values.get(name) for name in project.inputs})
        except ValueError:  # prepare refuses the row
            return ()
        return list(truth) if picks else target.names(truth)

    return facts(project, names, picks)


def foreseen(project: Project) -> dict[str, Any] | None:
    """Which learner a run would take for a table, and why; None where nothing is to be tried."""
    from modelyard.stages.learner import is_table
    from modelyard.stages.prepare import glance
    from modelyard.stages.train import foreseen

    if project.backbone.table != "auto" or not is_table(project):
        return None
    return foreseen(project, glance(project, TRIED_ROWS))


def build(file: Path, settings: Sequence[str], events: Events) -> Release:
    """Run what does not stand and give the Release."""
    release = build_until("release", file, settings, events)
    assert isinstance(release, Release)
    return release


def build_until(stage: str, file: Path, settings: Sequence[str], events: Events) -> Artefact:
    """Run what does not stand up to a stage, and give what that one makes."""
    from modelyard.stages import ORDER, build_stages

    project = read_project(file, settings)
    refuse_early(project)
    if stage == "release":
        own_key()  # a cause of the release: refused now where it cannot be made
    stages = build_stages()[: ORDER.index(stage) + 1]
    return run(project, stages, store_of(project), events)[stage]


def rungs_of(project: Project) -> dict[str, Any]:
    """The rungs of a project's model, as its report has them, and whether they are up to date.

    Raises ResultMissing where nothing has been made small yet.
    """
    from modelyard import targets
    from modelyard.stages import build_stages
    from modelyard.stages.front import front

    store = store_of(project)
    steps = {step.stage.name: step for step in plan(project, build_stages(), store)}
    standing = steps["compress"].manifest
    manifest = standing or store.latest("compress")
    if manifest is None:
        raise ResultMissing(
            f"The project {project.name} has no model that was made small yet; make one with "
            f"`modelyard compress {project.folder}`."
        )
    told = Model(store.folder(manifest)).read_json("compress.json")
    return {
        "event": "rungs",
        "name": project.name,
        "stands": standing is not None,
        "measure": targets.find(project.target.kind).main,
        **front(told, manifest, project.cost.core_hour),
    }


def result(project: Project) -> dict[str, Any]:
    """What stands of a project, as `run --json` ends with and `show --json` prints.

    `release` is the release's folder, or None where there is none.
    """
    from modelyard.stages import build_stages

    store = store_of(project)
    steps = plan(project, build_stages(), store)
    folders = {s.stage.name: store.folder(s.manifest) for s in steps if s.manifest}
    return {
        "event": "result",
        "name": project.name,
        "version": project.release.version,
        "release": str(folders["release"]) if "release" in folders else None,
        "report": str(folders["audit"] / "report.html") if "audit" in folders else None,
        "stages": [
            {
                "stage": step.stage.name,
                "stands": step.manifest is not None,
                "why": step.why,
                "digest": step.manifest.digest if step.manifest else None,
                "folder": str(folders[step.stage.name]) if step.manifest else None,
            }
            for step in steps
        ],
    }


def release_folder(given: Path | None) -> Path:
    """The release to use: a release's folder, or the newest of a project's folder or file.

    It needs neither the project's rows nor a key, and asks for no plan. Raises ReleaseMissing
    where there is none.
    """
    place = given or Path()
    if any((place / name).is_file() for name in ("model.json", "model.sig")):
        return place
    file = place / PROJECT_FILE if place.is_dir() else place
    if file.suffix == ".toml" and file.is_file():
        project = read_project(file)
        store = store_of(project)
        if newest := store.latest("release"):
            return store.folder(newest)
        raise ReleaseMissing(
            f"The project {project.name} in {file.parent} has no release yet; make it with "
            f"`modelyard run {file.parent}`."
        )
    raise ReleaseMissing(
        f"There is no release at {place}; give a release's folder or the folder of a project "
        "that has been run."
    )


def open_release(
    folder: Path | None,
    public_key: Path | None = None,
    candidates: Path | None = None,
    threads: int | None = None,
    shares: int | None = None,
) -> Runtime:
    """Verify a release, then open it, with other candidates than its own where they are given.

    `threads` and `shares` are the graph's.
    """
    from modelyard import inputs, targets
    from modelyard.runtime import seal

    folder = release_folder(folder)
    seal.verify(folder, public_key)
    runtime = Runtime.open(folder, inputs.find, targets.find, threads, shares)
    if not candidates:
        return runtime
    seal.verify(candidates, public_key)
    return replace(runtime, index=_index_beside(folder, candidates))


def signed_digest(folder: Path, public_key: Path | None = None) -> str:
    """Verify a signed folder; a digest of it, by what was signed."""
    from modelyard.runtime import seal

    seal.verify(folder, public_key)
    return digest.of_file(folder / seal.SIGNATURE)


def answer_fields(folder: Path) -> tuple[str, ...]:
    """The fields of a release's answers, without opening its graph."""
    from modelyard import targets

    return tuple(targets.find(Model(folder).spec.target.kind).wire.model_fields)


def _index_beside(release: Path, candidates: Path) -> Index:
    """The index in a folder that was made for a release; raises SettingInvalid for another."""
    index = Index.load(candidates)
    if index is None or Index.made_for(candidates) != _graph_digest(release):
        raise SettingInvalid(
            f"The folder {candidates} holds no candidates of the release {release}; make them with "
            f"`modelyard candidates {release} --out FOLDER`."
        )
    return index


def _graph_digest(release: Path) -> str:
    return digest.of_file(release / str(Model(release).spec.graph))


def change_candidates(
    release: Path | None,
    public_key: Path | None,
    candidates: Path | None,
    add: Path | None,
    remove: Path | None,
    out: Path,
) -> int:
    """Write a signed folder with a release's candidates, or those given, changed; their number.

    Nothing is trained. Raises SettingInvalid where the release picks from none, or `out` is there.
    """
    from modelyard.data.candidates import read, read_ids
    from modelyard.runtime import seal

    runtime = open_release(release, public_key, candidates)
    if runtime.index is None:
        raise SettingInvalid(
            f"The release {runtime.spec.name} answers with {runtime.spec.target.kind} and picks "
            "from no candidates; candidates are of a target of kind match."
        )
    if out.exists():
        raise SettingInvalid(f"{out} is there already; choose another folder or remove it.")
    index = runtime.index.without(read_ids(remove)) if remove else runtime.index
    if add:
        texts = read(add)
        vectors = runtime.vectors(list(texts.values()))
        index = index.beside(Index(list(texts), list(texts.values()), vectors))
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    index.save(draft, _graph_digest(release_folder(release)))
    seal.sign(draft)
    draft.rename(out)
    return len(index.ids)


def release_info(folder: Path, runtime: Runtime) -> "ReleaseInfo":
    """What the API says of a release."""
    from modelyard import __version__, inputs, targets
    from modelyard.service.release_info import Column, ReleaseInfo

    spec = runtime.spec
    kinds = [(source, inputs.find(source.kind)) for source in spec.inputs]
    columns = tuple(
        Column(
            s.column,
            s.kind,
            example=kind.example(),
            schema=kind.schema(),
            datatype=kind.datatype,
            is_binary=kind.is_binary,
            may_lack=len(kinds) > 1,
            values=tuple(s.state.get("values", ())),
        )
        for s, kind in kinds
    )
    if seen := _seen_column(runtime):
        columns = (*columns, seen)
    report = folder / "report.html"
    return ReleaseInfo(
        name=spec.name,
        version=spec.version,
        columns=columns,
        target=spec.target.kind,
        wire=targets.find(spec.target.kind).wire,
        labels=tuple(spec.target.state.get("labels", ())),
        report=report if report.is_file() else None,
        server_version=__version__,
    )


def _seen_column(runtime: Runtime) -> "Column | None":
    """The column with the candidates that a row has, where the target takes such."""
    from modelyard.runtime.runtime import SEEN
    from modelyard.service.release_info import Column

    name = runtime.spec.target.state.get(SEEN)
    if runtime.index is None or not name or name in runtime.columns.names:
        return None
    names = {"type": ["string", "integer"]}
    schema = {"anyOf": [{"type": "array", "items": names}, {"type": "string"}]}
    example = json.dumps(list(runtime.index.ids[:2]))
    return Column(name, "candidates", example, schema, may_lack=True, optional=True)
