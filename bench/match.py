"""Match: insurance questions and their answers, among the candidates that the rows give."""

from typing import Any

from bench.figures import Figure, measures
from bench.projects import from_sample, run

SETTINGS = ("train.epochs=1", "train.learning_rate=0.00005")
OVER_BM25 = 1.5


@measures("insurance-faq")
def insurance_faq() -> list[Figure]:
    """The 2,000 test questions, each among its right answers and the 200 given wrong ones."""
    report = run(from_sample("insurance-faq"), *SETTINGS)
    recall = _recall(report["measures"])
    bm25, untrained = (_baseline(report, name) for name in ("BM25", "untrained backbone"))
    theirs, difference = _recall(bm25["measures"])["value"], untrained["difference"]
    said = (
        f"{recall['rows']:,} test questions among their own pools, as released "
        f"({report['compression']['choice']}), seed 7; "
        f"BM25 {theirs:.4f}, untrained backbone {_recall(untrained['measures'])['value']:.4f}"
    )
    low, value, high = (recall[end] / theirs for end in ("low", "value", "high"))
    return [
        Figure("insurance-faq: recall@1 as a multiple of BM25's", value, low, high, OVER_BM25,
               ">=", "", f"{said}; Wilson 95 % interval of the recall {recall['value']:.4f}"),
        Figure("insurance-faq: recall@1 over the untrained backbone", difference["value"],
               difference["low"], difference["high"], 0.0, ">", "",
               f"{said}; paired 95 % interval"),
    ]  # fmt: skip


def _recall(measured: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in measured if each["name"] == "recall_at_1")


def _baseline(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["baselines"] if each["name"] == name)
