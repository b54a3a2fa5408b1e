"""Lineage: what a release was made from, by digest, down to the rows and the backbone."""

from typing import Any

from modelyard.core.artefacts import Manifest
from modelyard.core.flow import environment
from modelyard.stages.papers.facts import Facts, Json


def lineage(facts: Facts) -> Json:
    """lineage.json: sources, the stages with their keys and digests, seeds, versions, machine."""
    return {
        "format": 1,
        "name": facts.spec.name,
        "version": facts.spec.version,
        "sources": {
            "rows": {
                "source": facts.project["data"]["rows"],
                "licence": facts.project["release"]["rows_license"],
                **_outside(facts.manifests, "prepare"),
            },
            "backbones": facts.backbones,
        },
        "seeds": {
            "split": facts.project["data"]["split"]["seed"],
            "train": facts.project["train"]["seed"],
        },
        "stages": [_stage(manifest) for manifest in facts.manifests],
        "made": environment(),
    }


def _outside(manifests: list[Manifest], stage: str) -> dict[str, Any]:
    return next((dict(m.causes.get("outside", {})) for m in manifests if m.stage == stage), {})


def _stage(manifest: Manifest) -> Json:
    """A stage's own words, but for its part of the project file, which may hold a password."""
    causes = {name: value for name, value in manifest.causes.items() if name != "project"}
    return {
        **causes,
        "stage": manifest.stage,
        "version": manifest.version,
        "key": manifest.key,
        "digest": manifest.digest,
        "files": manifest.files,
        "record": manifest.record,
    }
