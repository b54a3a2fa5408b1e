"""The model card: README.md with the front matter that the Hugging Face Hub reads.

Mitchell, M. et al. (2019), Model cards for model reporting; sections as the Hub's template
orders them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from modelyard import inputs, targets
from modelyard.core.licences import licence_doubts
from modelyard.core.project import Project
from modelyard.stages.front import is_graph_alone
from modelyard.stages.papers.facts import Facts, Json
from modelyard.stages.report.numbers import interval, shown, title
from modelyard.stages.report.sentences import named

MOST_LABELS = 30
HUB_METRICS = {"macro_f1": "f1", "weighted_f1": "f1", "r2": "r_squared"}
NOT_QUALITY = ("_ms", "_per_s", "_bytes", "better_than_baseline")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def card(facts: Facts, project: Project, signer: str) -> str:
    """README.md: front matter, and what a person should know before use."""
    sections = [
        f"# {facts.spec.name} {facts.spec.version}",
        "\n\n".join(_plain(sentence) for sentence in facts.report["headline"]),
        _what_it_is(facts),
        _use(facts),
        _evaluation(facts),
        _calibration(facts),
        _training(facts),
        _limits(facts),
        _how_to_run(facts, signer),
        _licences(facts, project),
    ]
    return f"---\n{front_matter(facts)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def front_matter(facts: Facts) -> str:
    """The YAML that the Hub reads, with the measured results as `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    source = facts.project["data"]["rows"]
    results = [
        EvalResult(
            task_type=facts.pipeline or "other",
            dataset_type=facts.spec.name,
            dataset_name=source,
            dataset_split="test",
            metric_type=str(HUB_METRICS.get(each["name"], each["name"])),
            metric_name=title(each["name"]),
            metric_value=round(each["value"], 6),
        )
        for each in _quality(facts.report["measures"])
    ]
    metrics = dict.fromkeys(result.metric_type for result in results)
    licence = facts.project["release"]["license"]
    data = ModelCardData(
        model_name=facts.spec.name,
        language=facts.languages or None,
        license=licence,
        license_name="not-stated" if licence == "other" else None,
        base_model=[name for name in map(_base_model, facts.backbones) if name] or None,
        pipeline_tag=facts.pipeline,
        library_name="transformers" if _auto_class(facts) else None,
        tags=["modelyard", "onnx", *[each.kind for each in facts.spec.inputs]],
        metrics=list(metrics),
        eval_results=results,
    )
    return str(data.to_yaml(line_break="\n"))


def _base_model(backbone: Json) -> str | None:
    """The Hub id, where the backbone has one; the Hub refuses other names."""
    name = str(backbone["name"]).partition("@")[0]
    return name if "Hub" in backbone["source"] and HUB_ID.fullmatch(name) else None


def _quality(measures: Iterable[Json]) -> list[Json]:
    return [each for each in measures if not each["name"].endswith(NOT_QUALITY)]


def _what_it_is(facts: Facts) -> str:
    spec = facts.spec
    columns = ", ".join(f"`{_plain(each.column)}` ({each.kind})" for each in spec.inputs)
    labels = [f"`{_plain(label)}`" for label in facts.labels]
    more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    one_of = (
        f", {targets.find(spec.target.kind).chooses} {', '.join(labels[:MOST_LABELS])}{more}"
        if labels
        else ""
    )
    return (
        "## What it is\n\n"
        f"{_network(facts)} "
        f"It takes {columns} and answers `{_plain(spec.target.column)}`{one_of}."
    )


def _network(facts: Facts) -> str:
    names = " and ".join(_plain(each["name"]) for each in facts.backbones)
    if not names:
        if "rounds" in facts.training["decisions"]:
            return f"Boosted trees, {facts.training['steps']} rounds of them."
        return "A network for tables, trained from nothing."
    form = f"A {facts.config['model_type']} network" if facts.config else "Networks"
    was = "that was" if facts.config else "that were"
    method = facts.project["train"]["method"]
    return f"{form} {was} fine-tuned ({method}) from the backbone {names}."


def _use(facts: Facts) -> str:
    purpose = {
        "any": "No use was named when it was made.",
        "commercial": "It was made for commercial use.",
        "research": "It was made for research, and not for commercial use.",
    }[facts.project["release"]["use"]]
    columns = named([f"`{_plain(each.column)}`" for each in facts.spec.inputs])
    return (
        "## Intended use\n\n"
        f"{purpose} It is meant for rows like those it was tested on: {columns} from the same "
        "source, in the same language and of the same kind.\n\n"
        "Out of scope: rows of another kind or language, and decisions about people that no "
        "person looks at. It answers any row, also one that no answer fits."
    )


def _evaluation(facts: Facts) -> str:
    report = facts.report
    baselines = report["baselines"]
    head = ["Measure", "This model", "95 % interval", *(each["name"] for each in baselines), "Rows"]
    rows = [
        [
            title(each["name"]),
            shown(each["name"], each["value"], each["unit"]),
            interval(each["name"], each) if each["rows"] else "",
            *(_of_baseline(baseline, each["name"]) for baseline in baselines),
            f"{each['rows']:,}" if each["rows"] else "",
        ]
        for each in report["measures"]
    ]
    text = (
        "## Evaluation\n\n"
        f"Measured with `{facts.spec.graph}` on the test part ({report['rows']['test']:,} rows it "
        "has not learned from), beside plain baselines that learned from the same rows; speed on "
        f"{_machine(report['made']['machine'])}. `report.html` shows more.\n\n" + _table(head, rows)
    )
    return "\n\n".join(filter(None, [text, _by_class(report), _verdict(report["verdict"])]))


def _machine(machine: Json) -> str:
    return _plain(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")


def _of_baseline(baseline: Json, name: str) -> str:
    found = [each for each in baseline["measures"] if each["name"] == name]
    return shown(name, found[0]["value"]) if found else ""


def _by_class(report: Json) -> str:
    classes = report.get("table", {}).get("classes", [])[:MOST_LABELS]
    if not classes:
        return ""
    names = ("precision", "recall", "f1")
    rows = [
        [each["label"], *(shown(name, each[name]["value"]) for name in names), str(each["support"])]
        for each in classes
    ]
    return _table(["Answer", "Precision", "Recall", "F1", "Test rows"], rows)


def _verdict(verdict: Sequence[Json]) -> str:
    rows = [
        [
            title(each["name"]),
            each["limit"],
            shown(each["name"], each["value"], each["unit"]),
            "yes" if each["holds"] else "no",
        ]
        for each in verdict
    ]
    told = "What was required of it before it could be released:\n\n"
    return told + _table(["Measure", "Limit", "Measured", "Holds"], rows) if rows else ""


def _calibration(facts: Facts) -> str:
    found = facts.report.get("calibration")
    if not found:
        return ""
    error, gap = found["ece"], found["mean_score"] - found["accuracy"]
    side = "higher than" if gap > 0 else "lower than"
    return (
        "## Calibration\n\n"
        f"Its scores are on average {100 * abs(gap):.1f} points {side} its share of right answers "
        f"(mean score {100 * found['mean_score']:.1f} %, right {100 * found['accuracy']:.1f} %); "
        f"expected calibration error {error['value']:.3f} (95 % interval {error['low']:.3f} to "
        f"{error['high']:.3f}, {found['rows']:,} rows, {error['bins']} bins)."
    )


def _training(facts: Facts) -> str:
    rows, data = facts.report["rows"], facts.report["data"]
    counts = ", ".join(f"{count:,} {part}" for part, count in rows.items())
    seed = facts.project["data"]["split"]["seed"]
    way = _plain(data["split"]["way"]) if data else f"split with seed {seed}"
    return (
        "## Training data\n\n"
        f"{sum(rows.values()):,} rows of `{_plain(facts.project['data']['rows'])}`, {way}: "
        f"{counts}.{_duplicates(data) if data else ''} The rows are not part of "
        "this folder. `lineage.json` has the digests of everything it was made from."
    )


def _duplicates(data: Json) -> str:
    refused = ", ".join(f"{count:,} {_plain(why)}" for why, count in data["refused"].items())
    near = data["near_duplicates"]
    alike = (
        f" {near['rows']:,} of those kept are almost equal to another, and "
        f"{near['like_a_training_row']['test']:,} test rows to a training row."
    )
    return (
        f" Of {data['rows']['read']:,} rows read, {data['rows']['refused']:,} were refused"
        f"{f' ({refused})' if refused else ''}.{alike if near['method'] else ''}"
    )


def _limits(facts: Facts) -> str:
    return (
        "## Limits\n\n"
        "- The figures hold for rows like the test rows; other sources, times or subjects can "
        "give worse answers, and nothing here measures that.\n"
        "- It was not examined for equal treatment of groups of people, nor for resistance to "
        "inputs made to mislead it.\n"
        f"- The figures are of `{facts.spec.graph}`, which `modelyard serve` runs. "
        f"{_weights(facts)} in full precision, and its answers can differ slightly."
        f"{_chosen(facts.compression)}"
    )


def _weights(facts: Facts) -> str:
    if _auto_class(facts):
        whose = (
            " of the larger network it learned from" if is_graph_alone(facts.compression) else ""
        )
        return f"`model.safetensors`, which transformers loads, has the weights{whose}"
    if "rounds" in facts.training["decisions"]:
        return "The trees that were grown, also in this folder, are"
    return "The network that was trained, also in this folder, is"


def _chosen(compression: Json) -> str:
    why = f": {_plain(compression['why'])}" if compression.get("why") else ""
    return f" Its form is {_plain(compression['choice'])}{why}." if "choice" in compression else ""


def _how_to_run(facts: Facts, signer: str) -> str:
    row = {each.column: inputs.find(each.kind).example() for each in facts.spec.inputs}
    body = json.dumps({"rows": [row]}, ensure_ascii=False).replace("'", "'\\''")
    auto = _auto_class(facts)
    reads_images = bool(auto and "Image" in auto)
    reader = "AutoImageProcessor" if reads_images else "AutoTokenizer"
    variable = "processor" if reads_images else "tokenizer"
    python = (
        "Or with transformers, as it is:\n\n```python\n"
        f"from transformers import {auto}, {reader}\n\n"
        f'model = {auto}.from_pretrained("FOLDER")\n'
        f'{variable} = {reader}.from_pretrained("FOLDER")\n```\n\n'
        if auto
        else ""
    )
    return (
        f"## How to run it\n\n```sh\npip install {_needed(facts)}\n"
        "modelyard serve --dev FOLDER --public-key KEY\n"
        f"curl -s http://127.0.0.1:8000/v1/models/{facts.spec.name}/predict \\\n"
        f"  -H 'content-type: application/json' \\\n  -d '{body}'\n```\n\n{python}"
        "`modelyard verify FOLDER --public-key KEY` checks every file against the signature in "
        "`model.sig` (OpenSSF Model Signing). KEY is the maker's public key, got from the maker "
        f"and not from this folder; its fingerprint is `{signer}`."
    )


def _needed(facts: Facts) -> str:
    """What has to be installed to serve it: kinds of input may need an extra of their own."""
    extras = dict.fromkeys(inputs.find(each.kind).extra for each in facts.spec.inputs)
    named = ",".join(filter(None, extras))
    return f"'modelyard[{named}]'" if named else "modelyard"


def _auto_class(facts: Facts) -> str | None:
    """The class of transformers that loads the folder."""
    architecture = str(facts.config.get("architectures", [""])[0])
    found = re.search(r"For\w+$", architecture)
    if architecture.endswith("Model"):
        return "AutoModel"
    return f"AutoModel{found.group()}" if found else None


def _licences(facts: Facts, project: Project) -> str:
    terms = facts.project["release"]
    names = [f"- Backbone {_plain(b['name'])}: {_plain(b['licence'])}\n" for b in facts.backbones]
    told = (
        "## Licences\n\n"
        f"- This release: {_plain(terms['license'])}\n"
        f"{''.join(names)}"
        f"- Rows: {_plain(terms['rows_license'])}"
    )
    doubts = licence_doubts(project, [each["licence"] for each in facts.backbones])
    return "\n\n".join([told, *map(_plain, doubts)])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(value: Any) -> str:
    r"""Text that Markdown and HTML take as it is, on one line.

    >>> print(_plain("a|b <i>"))
    a\|b &lt;i>
    """
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
