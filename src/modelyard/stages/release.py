"""Release: everything a model needs to be used, in one folder, described and signed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from modelyard.core import digest
from modelyard.core.artefacts import Dataset, Model, Release, Report
from modelyard.core.errors import RequirementFailed
from modelyard.core.events import Events, Noted, Warned
from modelyard.core.licences import licence_doubts, licence_problem
from modelyard.core.project import Project
from modelyard.core.stages import Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.runtime import seal, signing_key
from modelyard.stages.papers.bom import bill_of_materials
from modelyard.stages.papers.card import card
from modelyard.stages.papers.facts import Facts, gather
from modelyard.stages.papers.lineage import lineage
from modelyard.stages.report.page import render

STAYS_HOME = ("seen.npy", "untrained.npy")
"""Files of a Model that tell which rows it has learned from, or that only the audit needs."""


def causes(project: Project) -> Mapping[str, str]:
    """Who signs: a release by another key is another release. A plan makes no key."""
    return {"signer": signing_key.known_fingerprint()}


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Copying, hashing and signing some 120 MB."""
    return Estimate(seconds=4.0, disk_bytes=130_000_000)


@stage(
    "release",
    version="1",
    reads=tuple(Project.model_fields),
    gives=Release,
    causes=causes,
    estimate=estimate,
)
def release(
    project: Project, dataset: Dataset, model: Model, report: Report, draft: Draft, events: Events
) -> None:
    """Put model, report and papers into one folder and sign it. Raises RequirementFailed."""
    facts = gather(project, dataset, model, report)
    _require(project, facts, events)
    folder = _empty(draft.kept / project.name)  # the signature tells the folder's name
    _copy_model(model, folder)
    _write_papers(project, facts, folder)
    verified = seal.sign(folder)
    for path in folder.iterdir():
        path.rename(draft.out / path.name)
    events(Noted(_where_the_key_is(verified)))


def _where_the_key_is(verified: seal.Verified) -> str:
    key = signing_key.own_key()
    return (
        f"Signed with your key {key} (fingerprint {verified.signer[:12]}…). Keep it to yourself; "
        f"who should verify the release needs {verified.public_key}."
    )


def _require(project: Project, facts: Facts, events: Events) -> None:
    failed = [limit["name"] for limit in facts.report["verdict"] if not limit["holds"]]
    if failed:
        raise RequirementFailed(
            f"There is no release, as [accept] does not hold for {', '.join(failed)}; the report "
            "says more."
        )
    licences = {str(each["name"]): str(each["licence"]) for each in facts.backbones}
    if problem := licence_problem(project, licences):
        raise RequirementFailed(problem)
    for doubt in licence_doubts(project, list(licences.values())):
        events(Warned(doubt))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _copy_model(model: Model, folder: Path) -> None:
    for name in digest.files_in(model.folder):
        if name not in STAYS_HOME:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.folder / name, folder / name)


def _write_papers(project: Project, facts: Facts, folder: Path) -> None:
    _write_json(folder / "model.json", facts.spec.model_dump(mode="json"))
    _write_json(folder / "report.json", facts.report)
    _write(folder / "report.html", render(facts.report))
    _write(folder / "project.toml", tomli_w.dumps(facts.project))
    _write(folder / "README.md", card(facts, project, signing_key.own_fingerprint()))
    _write_json(folder / "lineage.json", lineage(facts))
    _write_json(folder / "bom.cdx.json", bill_of_materials(facts, digest.of_folder(folder)))


def _write_json(file: Path, value: Any) -> None:
    _write(file, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")
