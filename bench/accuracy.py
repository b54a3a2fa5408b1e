"""Accuracy after int8, each beside the plain baseline on the same split."""

import statistics
from pathlib import Path
from typing import Any

from bench.figures import Figure, measures
from bench.projects import banking77, from_rows, from_sample, phrasebank, run
from modelyard.core.intervals import wilson

SEEDS = (1, 2, 3)
FEW_VALIDATION_ROWS = "data.split.validation=0.02"  # so that 78 of the 80 % train


@measures("reviews")
def reviews() -> list[Figure]:
    """One-sentence film reviews."""
    reports = _seeds(from_sample("reviews"), FEW_VALIDATION_ROWS)
    accuracy = _mean("reviews: accuracy after int8", reports, 0.835, ">=")
    return [accuracy, _over_tfidf("reviews: accuracy over TF-IDF", reports, 0.06, ">=")]


@measures("news-topics")
def news_topics() -> list[Figure]:
    """News articles in two windows of 256 tokens, where TF-IDF is very good; one seed."""
    settings = ("train.epochs=3", f"train.seed={SEEDS[0]}")
    reports = [run(from_sample("news-topics"), *settings)]
    right = float(all(_says_which(report) for report in reports))
    told = Figure(
        "news-topics: the report's first lines say which is better",
        right, right, right, 1, ">=", "",
        "first two sentences of the report, against the judgement of its paired interval",
    )  # fmt: skip
    return [told, _over_tfidf("news-topics: accuracy over TF-IDF", reports, 0.0, ">=")]


@measures("phrasebank")
def financial_phrasebank() -> list[Figure]:
    """Financial PhraseBank AllAgree."""
    reports = _seeds(from_rows("phrasebank", phrasebank()), FEW_VALIDATION_ROWS)
    return [_mean("Financial PhraseBank AllAgree: accuracy after int8", reports, 0.965, ">=")]


@measures("banking77")
def questions_to_a_bank() -> list[Figure]:
    """Banking77, 77 kinds of question, on its own 3,080 test rows; one seed."""
    report = run(banking77(), f"train.seed={SEEDS[0]}", "train.learning_rate=3e-4")
    return [
        _mean("Banking77: accuracy after int8", [report], 0.925, ">="),
        _over_tfidf("Banking77: accuracy over TF-IDF", [report], 0.0, ">"),
    ]


@measures("zh-reviews")
def zh_reviews() -> list[Figure]:
    """Chinese reviews on m3e-small; one seed, for its length."""
    report = run(from_sample("zh-reviews"), f"train.seed={SEEDS[0]}")
    return [_over_tfidf("zh-reviews: accuracy over character TF-IDF", [report], 0.0, ">")]


def _seeds(folder: Path, *settings: str) -> list[dict[str, Any]]:
    return [run(folder, f"train.seed={seed}", *settings) for seed in SEEDS]


def _accuracy(measured: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in measured if each["name"] == "accuracy")


def _tfidf(report: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in report["baselines"] if "TF-IDF" in each["name"])


def _mean(name: str, reports: list[dict[str, Any]], bar: float, op: str) -> Figure:
    values = [_accuracy(report["measures"])["value"] for report in reports]
    rows = int(_accuracy(reports[0]["measures"])["rows"])
    mean = statistics.mean(values)
    low, high = wilson(round(mean * rows), rows)
    told = ", ".join(f"{value:.4f}" for value in values)
    baseline = _accuracy(_tfidf(reports[0])["measures"])["value"]
    return Figure(
        name, mean, low, high, bar, op, "",
        f"{rows:,} test rows (80/20, split seed 42, duplicates removed; 2 % of the rows "
        f"validate), Wilson 95 % interval of the mean; seeds {SEEDS}: {told}; "
        f"{_tfidf(reports[0])['name']} {baseline:.4f}",
    )  # fmt: skip


def _over_tfidf(name: str, reports: list[dict[str, Any]], bar: float, op: str) -> Figure:
    differences = [_tfidf(report)["difference"] for report in reports]
    value, low, high = (
        statistics.mean(d[end] for d in differences) for end in ("value", "low", "high")
    )
    told = ", ".join(f"{_accuracy(report['measures'])['value']:.4f}" for report in reports)
    baseline = _accuracy(_tfidf(reports[0])["measures"])["value"]
    rows = int(_accuracy(reports[0]["measures"])["rows"])
    return Figure(
        name, value, low, high, bar, op, "",
        f"{rows:,} test rows; this project {told}; {_tfidf(reports[0])['name']} {baseline:.4f}; "
        "paired 95 % interval, mean over the seeds",
    )  # fmt: skip


def _says_which(report: dict[str, Any]) -> bool:
    """Whether the headline's judgement is that of the accuracies."""
    said = [sentence for sentence in report["headline"][:2] if "TF-IDF" in sentence]
    return len(said) == 1 and _tfidf(report)["judgement"] in said[0].partition("TF-IDF")[0]
