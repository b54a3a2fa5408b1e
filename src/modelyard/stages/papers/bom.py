"""Bill of materials: CycloneDX 1.6 with a model card inside (ML-BOM).

The library writes everything but `modelCard` and a component's `data`, which it does not know
yet; these two are put in by hand, and a test holds the whole against the published schema.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any

from modelyard.core.flow import environment
from modelyard.stages.papers.facts import Facts, Json

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

MODEL, BACKBONE, ROWS = "model", "backbone", "rows"


def bill_of_materials(facts: Facts, files: Mapping[str, str]) -> Json:
    """bom.cdx.json; `files` maps the files of the release to their SHA-256."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    model, rows = _model(facts, files), _rows(facts)
    bases = [_backbone(each, f"{BACKBONE}-{n}") for n, each in enumerate(facts.backbones)]
    libraries = [_library(*each) for each in environment()["versions"].items()]
    bom = Bom(components=[*bases, rows, *libraries])
    bom.metadata.component = model
    bom.register_dependency(model, [*bases, rows, *libraries])
    written: Json = json.loads(JsonV1Dot6(bom).output_as_string())
    written["metadata"]["component"]["modelCard"] = model_card(facts)
    data = next(each for each in written["components"] if each["bom-ref"] == ROWS)
    data["data"] = [_dataset(facts)]
    return written


def _model(facts: Facts, files: Mapping[str, str]) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    parts = [
        Component(
            type=ComponentType.FILE,
            name=name,
            bom_ref=f"file:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name, digest in files.items()
    ]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=facts.spec.name,
        version=facts.spec.version,
        bom_ref=MODEL,
        description=str(facts.report["headline"][0]),
        licenses=_licences(facts.project["release"]["license"]),
        pedigree=Pedigree(
            ancestors=[_backbone(each, f"ancestor-{n}") for n, each in enumerate(facts.backbones)]
        ),
        components=parts,
    )


def _backbone(known: Json, ref: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=known["name"],
        bom_ref=ref,
        description=f"The pre-trained network that training started from; from {known['source']}.",
        licenses=_licences(known["licence"]),
        properties=_properties({"modelyard:digest": known["digest"]}),
    )


def _rows(facts: Facts) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    digests = {f"modelyard:{each.stage}": each.digest for each in facts.manifests[:1]}
    return Component(
        type=ComponentType.DATA,
        name=facts.project["data"]["rows"],
        bom_ref=ROWS,
        licenses=_licences(facts.project["release"]["rows_license"]),
        properties=_properties(digests),
    )


def _library(name: str, version: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("generic" if name == "python" else "pypi", name=name, version=version)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=str(purl),
        purl=purl,
        licenses=_licences(_licence_of(name)),
    )


def _licence_of(package: str) -> str:
    if package == "python":
        return "PSF-2.0"
    try:
        about = metadata(package)
    except PackageNotFoundError:
        return ""
    named = [c for c in about.get_all("Classifier", []) if c.startswith("License :: ")]
    fields = ("License-Expression", "License")
    told = next((about[field] for field in fields if field in about), "")
    if not 0 < len(told) < 100:  # some packages put the whole text there
        told = named[0].rpartition(" :: ")[2] if named else ""
    return told


def _licences(name: str) -> "Iterable[License]":
    """The licence by its SPDX id where it has one, by its own words where not."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.spdx import fixup_id

    return [LicenseFactory().make_from_string(fixup_id(name) or name)] if name.strip() else []


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in values.items()]


def model_card(facts: Facts) -> Json:
    """CycloneDX's model card: what the model is, what was measured, what to mind."""
    wire = {each.column: each.kind for each in facts.spec.inputs}
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": facts.pipeline or f"tell {facts.spec.target.column}",
            "architectureFamily": str(facts.config.get("model_type", "modelyard")),
            "modelArchitecture": str(facts.config.get("architectures", [_own(facts)])[0]),
            "datasets": [{"ref": ROWS}],
            "inputs": [{"format": f"{column}: {kind}"} for column, kind in wire.items()],
            "outputs": [{"format": f"{facts.spec.target.column}: {facts.spec.target.kind}"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [_metric(each) for each in facts.report["measures"]]
        },
        "considerations": {
            "useCases": [f"use: {facts.project['release']['use']}"],
            "technicalLimitations": list(facts.report["headline"]),
        },
    }


def _own(facts: Facts) -> str:
    """What our own networks are called."""
    return "Forest" if "rounds" in facts.training["decisions"] else "Fused"


def _metric(measure: Json) -> Json:
    return {
        "type": measure["name"],
        "value": str(measure["value"]),
        "slice": f"test part, {measure['rows']} rows",
        "confidenceInterval": {
            "lowerBound": str(measure["low"]),
            "upperBound": str(measure["high"]),
        },
    }


def _dataset(facts: Facts) -> Json:
    rows = facts.report["rows"]
    told = ", ".join(f"{count} {part}" for part, count in rows.items())
    return {"type": "dataset", "name": facts.project["data"]["rows"], "description": told}
