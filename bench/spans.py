"""Entities: CoNLL-2003 and CLUENER, each on the test rows that others report."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import WORK, Figure, measures
from bench.projects import DATA, DataMissing, modelyard, run
from modelyard import checks, targets
from modelyard.core.measure import Measure
from modelyard.data.source import open_path

TARGET = targets.find("spans")
SETTINGS = ("train.label_smoothing=0.0", "data.split.test=0.02", "data.split.validation=0.05")
Rows = list[dict[str, Any]]


@measures("conll")
def conll() -> list[Figure]:
    """CoNLL-2003, English: newspaper sentences with persons, places, organisations and others."""
    folder = _project("conll", "minilm", "rows.conll")
    parts = [_file("conll2003", f"eng.{part}") for part in ("train", "testa", "testb")]
    texts = [part.read_text(encoding="utf-8") for part in parts]
    (folder / "rows.conll").write_text("\n".join(texts[:2]), encoding="utf-8")
    (folder / "test.conll").write_text(texts[2], encoding="utf-8")
    entities, found = _measured(folder, "train.epochs=5", "train.learning_rate=3e-4")
    told = "testb, sentence by sentence; trained on train and testa"
    return [
        _figure("CoNLL-2003: token micro F1 with O", found, "token_micro_f1", 0.975, told),
        _figure("CoNLL-2003: token weighted F1 with O", found, "token_weighted_f1", 0.975, told),
        _figure(
            "CoNLL-2003: entity F1", found, "entity_f1", 0.88, f"{told}; {entities:,} entities"
        ),
    ]


@measures("cluener")
def cluener() -> list[Figure]:
    """CLUENER: Chinese news with ten kinds of entities; its test rows have no labels."""
    folder = _project("cluener", "m3e-small", "rows.jsonl")
    for name, part in (("rows", "train"), ("test", "dev")):
        lines = [
            json.dumps({"text": each["text"], "spans": each["label"]}) for each in _objects(part)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    entities, found = _measured(folder, "train.epochs=6", "train.learning_rate=3e-4")
    told = f"dev, trained on train; {entities:,} entities"
    return [_figure("CLUENER: entity F1", found, "entity_f1", 0.72, told)]


def _file(*parts: str) -> Path:
    file = DATA.joinpath(*parts)
    if not file.exists():
        raise DataMissing(f"{file} is missing; set MODELYARD_DATA to the folder of benchmark rows")
    return file


def _objects(part: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of CLUENER, which stand one after the other over several lines."""
    text, place = _file("cluener", f"{part}.json").read_text(encoding="utf-8"), 0
    while (place := text.find("{", place)) >= 0:
        found, place = json.JSONDecoder().raw_decode(text, place)
        yield found


def _project(name: str, backbone: str, rows: str) -> Path:
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modelyard.toml").write_text(
        f'name = "{name}"\n[data]\nrows = "{rows}"\n[inputs]\ntext = "text"\n'
        f'[target]\ncolumn = "spans"\nkind = "spans"\n[backbone]\ntext = "{backbone}"\n',
        encoding="utf-8",
    )
    return folder


def _measured(folder: Path, *settings: str) -> tuple[int, dict[str, tuple[Measure, Measure]]]:
    """Each measure on the test file, of the release and of the dictionary; and the entities."""
    release = run(folder, *SETTINGS, *settings)["release"]
    [file] = folder.glob("test.*")
    out = folder / "answers.jsonl"
    modelyard("predict", release, str(file), "--out", str(out))
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    truths = [TARGET.read(row["given_spans"], {"text": row["text"]}) for row in answers]
    known = list(_known(next(folder.glob("rows.*"))))
    values = {"text": [row["text"] for row in answers]}
    [baseline] = TARGET.baselines("", None, known, None, values)
    own, plain = (_all(truths, each) for each in (answers, baseline.answers))
    return sum(len(each["spans"]) for each in truths), {
        name: (measure, plain[name]) for name, measure in own.items()
    }


def _known(file: Path) -> Iterator[Any]:
    """The truths of the rows to learn from; one of CLUENER has spans that overlap."""
    for record in open_path(file).records:
        with contextlib.suppress(ValueError):
            yield TARGET.read(record.values["spans"], {"text": record.values["text"]})


def _all(truths: Rows, answers: Rows) -> dict[str, Measure]:
    fitting = checks.fitting(TARGET.wire.model_fields)
    of_checks = [each for check in fitting for each in check.run(truths, answers).measures]
    return {each.name: each for each in (*TARGET.score(truths, answers), *of_checks)}


def _figure(
    name: str, found: Mapping[str, tuple[Measure, Measure]], measure: str, bar: float, told: str
) -> Figure:
    own, plain = found[measure]
    return Figure(
        name, own.value, own.low, own.high, bar, ">=", "",
        f"{own.rows:,} rows of {told}; int8; dictionary of the training rows' entities "
        f"{plain.value:.4f}; 95 % interval of 1,000 bootstrap samples of the rows",
    )  # fmt: skip
