"""Facts: what the papers of a release are written from, without a single raw row."""

from dataclasses import dataclass
from typing import Any

from modelyard.core.artefacts import Artefact, Dataset, Manifest, Model, ModelSpec, Report
from modelyard.core.project import Project
from modelyard.data.source import without_secrets
from modelyard.stages.report.sentences import headline

Json = dict[str, Any]
# What a network's class in transformers is for on the Hugging Face Hub.
PIPELINES = {
    "ForImageClassification": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
}
COMMON = 0.1
"""The share of rows from which a language counts as one of the rows'; guesses are rarer."""


@dataclass(frozen=True)
class Facts:
    """Everything the papers tell; all of it may leave the house."""

    project: Json
    spec: ModelSpec
    config: Json
    training: Json
    compression: Json
    report: Json
    manifests: list[Manifest]
    """Of the dataset, the model and the report."""

    @property
    def backbones(self) -> list[Json]:
        """Name, licence, source and digest of each network that training started from."""
        return list(self.training["backbones"])

    @property
    def languages(self) -> list[str]:
        """The languages of the rows, as ISO 639 codes; of the backbone, where those are unknown."""
        told = ((self.report["data"] or {}).get("languages") or {}).get("shares", [])
        common = [str(each["language"]) for each in told if each["share"] >= COMMON]
        return [each for each in common if each != "other"] or [
            language for each in self.backbones for language in each["languages"]
        ]

    @property
    def labels(self) -> list[str]:
        """The labels the network knows, in its order; empty where it has none."""
        return list(self.spec.target.state.get("labels", ()))

    @property
    def pipeline(self) -> str | None:
        """What the Hugging Face Hub calls such a network's work."""
        architecture = str(self.config.get("architectures", [""])[0])
        return next((p for end, p in PIPELINES.items() if architecture.endswith(end)), None)


def gather(project: Project, dataset: Dataset, model: Model, report: Report) -> Facts:
    """The facts of a release that is about to be made."""
    made_from: list[Artefact] = [dataset, model, report]
    spec = model.spec.model_copy(update={"name": project.name, "version": project.release.version})
    return Facts(
        project=shareable(project),
        spec=spec,
        config=_config(model),
        training=model.read_json("training.json"),
        compression=model.read_json("compress.json"),
        report=public_report(report.read_json("report.json"), spec),
        manifests=[each.manifest for each in made_from if each.manifest],
    )


def _config(model: Model) -> Json:
    """The configuration that transformers reads, or nothing where the network is our own."""
    found = "config.json" if (model.folder / "config.json").is_file() else None
    return dict(model.read_json(found)) if found else {}


def shareable(project: Project) -> Json:
    """The resolved project, without what opens a database."""
    resolved = project.model_dump(mode="json", exclude_none=True)
    resolved["data"]["rows"] = without_secrets(resolved["data"]["rows"])
    return resolved


def public_report(report: Json, spec: ModelSpec) -> Json:
    """The report of this release: its figures, without the rows that the audit's own quotes."""
    public = {**report, "name": spec.name, "version": spec.version}
    if residuals := report.get("residuals"):
        public["residuals"] = {**residuals, "listed": []}
    if mistakes := report.get("mistakes"):
        listed = [{**each, "inputs": {}, "pictures": {}} for each in mistakes["listed"]]
        public["mistakes"] = {**mistakes, "listed": listed}
    if data := report.get("data"):
        name = without_secrets(data["source"]["name"])
        public["data"] = {
            **data,
            "source": {**data["source"], "name": name},
            "near_duplicates": {**data["near_duplicates"], "examples": []},
        }
    return {**public, "headline": headline(public)}
