"""The two fine-tuned models, made with this project's own command, and their texts."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import modelyard
from bench.ceiling import operations
from bench.peers.catalogue import IN_PROCESS, OURS
from bench.peers.environments import PLACE
from bench.peers.rounds import Job, labels_of
from bench.projects import banking77, from_rows, parts, phrasebank, rows_of, run
from modelyard.checks.difference import Difference, difference

CALIBRATED = "compress.target=int8-calibrated"
MOST_TEXTS = 512
"""Of the test rows, so many are asked again and again."""


@dataclass(frozen=True)
class Source:
    """Where a model and its texts come from."""

    title: str
    project: Callable[[], Path]
    label: str
    settings: tuple[str, ...]


SOURCES = {
    "phrasebank": Source(
        "Financial PhraseBank",
        lambda: from_rows("phrasebank", phrasebank()),
        "label",
        ("train.seed=1", CALIBRATED),
    ),
    "banking77": Source(
        "banking77", banking77, "category", ("train.seed=1", "train.learning_rate=3e-4", CALIBRATED)
    ),
}


@dataclass(frozen=True)
class Prepared:
    """What is measured, and what int8 loses on all test rows."""

    job: Job
    lost: Difference
    """How much more often the fp32 model is right than the int8 engine."""


def prepared(name: str, settings: Sequence[str] = ()) -> Prepared:
    """The model of that name, made or found in the store, and its test rows in random order.

    `settings` are KEY=VALUE of its project file, after its own.
    """
    source = SOURCES[name]
    folder = source.project()
    release = Path(run(folder, *source.settings, *settings)["release"])
    rows = rows_of(parts(folder) / "test.parquet", source.label)
    random.Random(0).shuffle(rows)  # those of banking77 come kind by kind
    file = PLACE / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([text for text, _ in rows]), encoding="utf-8")
    ours, fp32 = (labels_of(IN_PROCESS[engine], release, file) for engine in (OURS, "pipeline"))
    asked = [text for text, _ in rows[:MOST_TEXTS]]
    asked_file = file.with_suffix(".asked.json")
    asked_file.write_text(json.dumps(asked), encoding="utf-8")
    lengths = modelyard.load(release).encode([{"text": text} for text in asked]).lengths
    each = operations(release, lengths.tolist()) / len(asked)
    mean = float(lengths.mean())
    job = Job(name, source.title, release, asked, asked_file, fp32, mean, each)
    truth = [label for _, label in rows]
    pairs = ([{"label": label} for label in labels] for labels in (fp32, ours))
    return Prepared(job, difference(truth, *pairs))
