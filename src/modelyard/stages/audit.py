"""Audit: what the compressed model does on rows it has never seen, beside plain baselines.

Everything is predicted through the Runtime, the path that serves. A limit that does not hold
is a result, said in the Report; it is no error here.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard import checks, inputs, targets
from modelyard.checks import Finding, limits
from modelyard.checks.difference import fitting as fitting_difference
from modelyard.checks.latency import MEASURES, latency
from modelyard.core.artefacts import ROW, Artefact, Dataset, Model, Report
from modelyard.core.errors import RowsAlreadySeen, RowsEmpty, SettingInvalid
from modelyard.core.events import Events, Noted, Progress
from modelyard.core.flow import environment
from modelyard.core.measure import Measure
from modelyard.core.project import Project
from modelyard.core.stages import GIGA, Estimate, RowFacts, stage
from modelyard.core.store import Draft
from modelyard.inputs.plain import PlainTable
from modelyard.models import backbones
from modelyard.runtime.index import Pool
from modelyard.runtime.runtime import Runtime
from modelyard.stages.candidates import Plain, pools_of
from modelyard.stages.front import front
from modelyard.stages.report.page import render
from modelyard.stages.report.sentences import headline
from modelyard.stages.train import backbone_names
from modelyard.targets import Baseline, Target

CHUNK_ROWS = 512
PARTS = ("train", "validation", "test")
Rows = list[dict[str, Any]]
Answers = list[dict[str, Any]]


def estimate(project: Project, facts: RowFacts) -> Estimate:
    """Predicting the test rows, six seconds of latency, and two baselines on the rest."""
    characters = facts.rows * min(facts.mean_characters, 2000.0)
    predicting_s = characters * project.data.split.test * 2.5e-5
    baselines_s = 1 + characters * 8e-6
    return Estimate(
        seconds=8 + predicting_s + baselines_s,
        memory_bytes=GIGA // 2 + int(characters * 40),
        disk_bytes=1_000_000 + int(facts.rows * project.data.split.test * 200),
    )


READS = ("name", "inputs", "target", "accept", "release", "cost")


@stage("audit", version="7", reads=READS, gives=Report, estimate=estimate)
def audit(project: Project, dataset: Dataset, model: Model, draft: Draft, events: Events) -> None:
    """Predict the test rows, run the checks, train the baselines, and say what holds."""
    known = known_limits(targets.find(project.target.kind))
    limits.refuse_unknown(project.accept, known)
    rows = pq.read_table(dataset.part("test")).to_pylist()
    refuse_seen(model, rows)
    runtime = Runtime.open(model.folder, inputs.find, targets.find)
    answers = list(_predicted(runtime, rows, _pools(model, rows), events))
    _write_predictions(draft, model, rows, answers)
    findings = [
        _quality(model, rows, answers),
        _speed(runtime, rows, events),
        _beside_baselines(project, dataset, model, rows, answers, events),
    ]
    found = _report(project, dataset, model, findings)
    for sentence in found["headline"]:
        events(Noted(sentence))
    text = json.dumps(found, ensure_ascii=False, indent=1)
    (draft.out / "report.json").write_text(text + "\n", encoding="utf-8")
    (draft.out / "report.html").write_text(render(found), encoding="utf-8")


def known_limits(target: Target) -> list[str]:
    """The names that [accept] may set a limit on, for this target."""
    keys = target.wire.model_fields
    of_checks = [name for check in checks.fitting(keys) for name in check.measures]
    paired = ["better_than_baseline"] if fitting_difference(keys) else []
    return [*target.measures, *of_checks, *MEASURES, "model_bytes", *paired]


def refuse_no_test(project: Project) -> None:
    """Raise SettingInvalid where the project keeps no rows for the audit."""
    if project.data.split.test == 0:
        raise SettingInvalid(
            "data.split.test is 0, so there would be no rows to audit the model on; set it above "
            "0, for example to 0.2."
        )


def refuse_seen(model: Model, rows: Sequence[dict[str, Any]]) -> None:
    """Raise RowsEmpty without rows, RowsAlreadySeen where the model has learned from one."""
    if not rows:
        raise RowsEmpty(
            "The test part has no rows, so there is nothing to audit on; set data.split.test "
            "above 0."
        )
    sources = model.spec.inputs
    values = {each.column: [row[each.column] for row in rows] for each in sources}
    digests = inputs.row_digests(sources, values, [row[ROW] for row in rows])
    seen = np.isin(digests, np.load(model.folder / "seen.npy", allow_pickle=False))
    if seen.any():
        first = rows[int(seen.argmax())][ROW]
        raise RowsAlreadySeen(
            f"The model has learned from {int(seen.sum()):,} of the {len(rows):,} rows it would "
            f"be audited on (the first is row {first} of the source); train it again on this "
            "dataset's training part, or audit it on new rows."
        )


def _pools(model: Model, rows: Rows) -> list[Pool] | None:
    """What each row's answers are picked from, where they are picked."""
    if targets.find(model.spec.target.kind).reads != "vectors":
        return None
    return pools_of(_truth(model, rows))


def _predicted(
    runtime: Runtime, rows: Rows, pools: list[Pool] | None, events: Events
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), CHUNK_ROWS):
        some = slice(start, start + CHUNK_ROWS)
        yield from runtime.predict(rows[some], pools and pools[some])
        done = min(start + CHUNK_ROWS, len(rows))
        events(Progress("predicting the test rows", done, len(rows), "rows"))


def _quality(model: Model, rows: Rows, answers: Answers) -> Finding:
    """What the target measures, and every check that fits its answers."""
    target = targets.find(model.spec.target.kind)
    truth = _truth(model, rows)
    fitting = checks.fitting(target.wire.model_fields)
    findings = {check.name: check.run(truth, answers) for check in fitting}
    of_checks = (measure for finding in findings.values() for measure in finding.measures)
    details = {name: each.details for name, each in findings.items() if each.details}
    _tell_rows(details, model, rows)
    return Finding((*target.score(truth, answers), *of_checks), details)


def _speed(runtime: Runtime, rows: Rows, events: Events) -> Finding:
    events(Progress("measuring latency", 0, 1, seconds_left=5))
    finding = latency(runtime.predict, rows)
    events(Progress("measuring latency", 1, 1, seconds_left=0))
    return Finding(finding.measures, {"latency": finding.details})


def _beside_baselines(
    project: Project,
    dataset: Dataset,
    model: Model,
    rows: Rows,
    answers: Answers,
    events: Events,
) -> Finding:
    target, truth = targets.find(model.spec.target.kind), _truth(model, rows)
    events(Progress("training the plain baselines", 0, 1))
    if target.reads == "vectors":
        baselines = _ranked(project, dataset, model, rows, events)
    else:
        baselines = _baselines(dataset, model, rows)
    events(Progress("training the plain baselines", 1, 1, seconds_left=0))
    compared = [_compared(target, truth, answers, baseline) for baseline in baselines]
    return Finding(_ahead(compared), {"baselines": compared})


def _baselines(dataset: Dataset, model: Model, rows: Rows) -> list[Baseline]:
    """Plain models that learn from the training part and answer the test rows."""
    sources, column = model.spec.inputs, model.spec.target.column
    names = [each.column for each in sources]
    learned_from = pq.read_table(dataset.part("train"), columns=[*names, column])
    features = PlainTable(sources)
    learned = features.fit_transform({name: learned_from[name].to_pylist() for name in names})
    test_values = {name: [row[name] for row in rows] for name in names}
    return targets.find(model.spec.target.kind).baselines(
        features.name,
        learned,
        learned_from[column].to_pylist(),
        features.transform(test_values),
        test_values,
    )


def _ranked(
    project: Project, dataset: Dataset, model: Model, rows: Rows, events: Events
) -> list[Baseline]:
    """Plain ways to rank the candidates: frequency, shared words, the backbone as it came.

    Where the same candidates recur, as what people buy does, shared factors too.
    """
    found = {
        kind: backbones.resolve(name, events, project.folder, kind)
        for kind, name in backbone_names(project).items()
    }
    plain = Plain(dataset, model, lambda group: found[group.kind].folder, events)
    pools, spec = _pools(model, rows) or [], model.spec
    ranked = {"most frequent candidates": plain.most_frequent(pools)}
    if spec.candidate and not spec.unasked:
        texts = [row[spec.candidate.column] for row in rows]
        ranked["BM25"] = plain.bm25([text or "" for text in texts], pools)
        ranked["untrained backbone"] = plain.untrained(texts, pools)
    if plain.recurs:
        ranked["matrix factorisation"] = plain.factorised(rows, pools)
    decode = targets.find(spec.target.kind).decode
    return [Baseline(name, decode(own, spec.target.state)) for name, own in ranked.items()]


def _compared(
    target: Target, truth: list[Any], answers: Answers, baseline: Baseline
) -> dict[str, Any]:
    of_checks = (
        measure
        for check in checks.fitting(target.wire.model_fields)
        if check.measures
        for measure in check.run(truth, baseline.answers).measures
    )
    measures = [*target.score(truth, baseline.answers), *of_checks]
    compared: dict[str, Any] = {
        "name": baseline.name,
        "measures": [measure.to_json() for measure in measures],
    }
    if compare := fitting_difference(target.wire.model_fields):
        paired = compare(truth, answers, baseline.answers)
        compared["difference"] = asdict(paired)
        compared["judgement"] = paired.judgement
    return compared


def _ahead(compared: list[dict[str, Any]]) -> tuple[Measure, ...]:
    """By how many hundredths the model is ahead of the best baseline."""
    able = [each["difference"] for each in compared if "difference" in each]
    if not able:
        return ()
    best = min(able, key=lambda difference: float(difference["value"]))
    value, low, high = (100 * best[end] for end in ("value", "low", "high"))
    ahead = Measure("better_than_baseline", value, low, high, best["rows"], unit=best["unit"])
    return (ahead,)


def _report(
    project: Project, dataset: Dataset, model: Model, findings: list[Finding]
) -> dict[str, Any]:
    """Everything the report says, as plain JSON."""
    measures = [*(measure for each in findings for measure in each.measures), _size(model)]
    data = _optional(dataset, "data-report.json")
    by_name = {each.name: each for each in measures}
    limits.refuse_unmeasured(project.accept, by_name)
    found = {
        **_about(project, dataset, model),
        "language": _language(data),
        "verdict": limits.verdict(project.accept, by_name),
        "measures": [measure.to_json() for measure in measures],
        **{name: details for each in findings for name, details in each.details.items()},
        "data": data,
        "training": _optional(model, "training.json"),
        "compression": _compression(project, model),
    }
    return {"headline": headline(found), **found}


def _compression(project: Project, model: Model) -> Any:
    """What the ladder's rungs do and cost, where the model has climbed it."""
    told = _optional(model, "compress.json")
    return told and front(told, model.manifest, project.cost.core_hour)


def _language(data: Any) -> str | None:
    """The most frequent language of the rows, where they have words."""
    told = data["languages"] if data else None
    return str(told["shares"][0]["language"]) if told else None


def _about(project: Project, dataset: Dataset, model: Model) -> dict[str, Any]:
    spec = model.spec
    rows = {part: pq.read_metadata(dataset.part(part)).num_rows for part in PARTS}
    return {
        "name": project.name,
        "version": project.release.version,
        "inputs": [{"column": each.column, "kind": each.kind} for each in spec.inputs],
        "target": {"column": spec.target.column, "kind": spec.target.kind},
        "main": targets.find(spec.target.kind).main,
        "made": {**environment(), "date": datetime.now(UTC).strftime("%Y-%m-%d")},
        "made_from": {
            name: artefact.manifest.digest
            for name, artefact in (("dataset", dataset), ("model", model))
            if artefact.manifest
        },
        "rows": rows,
    }


def _size(model: Model) -> Measure:
    size = float((model.folder / str(model.spec.graph)).stat().st_size)
    return Measure("model_bytes", size, size, size, 0, higher_is_better=False)


def _truth(model: Model, rows: Rows) -> list[Any]:
    return [row[model.spec.target.column] for row in rows]


def _optional(artefact: Artefact, name: str) -> Any:
    return artefact.read_json(name) if (artefact.folder / name).is_file() else None


def _tell_rows(details: dict[str, Any], model: Model, rows: Rows) -> None:
    """Put the source's row number, texts and pictures of each row that a check lists beside it."""
    kinds = {each.column: inputs.find(each.kind) for each in model.spec.inputs}
    for listed in (each for found in details.values() for each in found.get("listed", [])):
        row = rows[listed["row"]]
        listed["row"] = row[ROW]
        told = {name: row[name] for name in kinds if not isinstance(row[name], bytes)}
        listed["inputs"] = {name: shortened(str(value)) for name, value in told.items()}
        seen = {n: kind.picture(row[n]) for n, kind in kinds.items() if row[n] is not None}
        listed["pictures"] = {name: url for name, url in seen.items() if url}


def shortened(text: str, most_characters: int = 300) -> str:
    """A text cut at a number of characters, with an ellipsis where something was cut.

    >>> shortened("a quiet triumph", 8)
    'a quiet…'
    """
    if len(text) <= most_characters:
        return text
    return text[: most_characters - 1].rstrip() + "…"


def _write_predictions(draft: Draft, model: Model, rows: Rows, answers: Answers) -> None:
    """One row for each test row: `_row`, truth, and the answer; nested values as JSON."""
    columns: dict[str, list[Any]] = {
        ROW: [row[ROW] for row in rows],
        "truth": [_plain(truth) for truth in _truth(model, rows)],
    }
    for key in answers[0]:
        columns[key] = [_plain(answer[key]) for answer in answers]
    pq.write_table(pa.table(columns), draft.out / "predictions.parquet")


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
