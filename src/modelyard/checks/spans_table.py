"""The tables of spans: of each label by whole spans, and of each tag by words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.checks.labels_table import lines_of
from modelyard.core.measure import Measure
from modelyard.runtime.tags import fitting_words, tags_of, words_of

AVERAGES = ("micro", "macro", "weighted")
Truths = Sequence[Mapping[str, Any]]
Counts = NDArray[np.float64]


def spans_table(truth: Truths, answers: Answers) -> Finding:
    """Precision, recall and F1 of each label, and below of each tag, outside (O) among them.

    A span is right where both ends and the label are. The words' tags are O, B-LABEL for the
    first word of a span and I-LABEL for the others. Intervals are as in `table`, those of the
    averages of 1,000 bootstrap samples of the rows.
    """
    labels = sorted({span["label"] for own in (*truth, *answers) for span in own["spans"]})
    told, _ = lines_of(labels, _of_spans(truth, answers, labels))
    by_word, averages = lines_of(_tags(labels), _of_words(truth, answers, labels))
    rows = len(truth)
    measures = tuple(_measure(f"token_{name}_f1", averages[name]["f1"]) for name in AVERAGES)
    words = by_word["averages"][0]["support"]
    return Finding(measures, {"rows": rows, **told, "tokens": {"words": words, **by_word}})


def _measure(name: str, figure: Mapping[str, Any]) -> Measure:
    return Measure(name, figure["value"], figure["low"], figure["high"], figure["rows"])


def _of_spans(truth: Truths, answers: Answers, labels: Sequence[str]) -> Counts:
    """Of each row and label the spans found rightly, those that are so, those found (3, B, C)."""
    counts = np.zeros((3, len(truth), len(labels)))
    number = {label: place for place, label in enumerate(labels)}
    for row, pair in enumerate(zip(truth, answers, strict=True)):
        true, found = (
            {(span["start"], span["end"], span["label"]) for span in own["spans"]} for own in pair
        )
        for place, some in enumerate((true & found, true, found)):
            for _, _, label in some:
                counts[place, row, number[label]] += 1
    return counts


def _of_words(truth: Truths, answers: Answers, labels: Sequence[str]) -> Counts:
    """The same of each row and tag, by words (3, B, 1 + 2 C)."""
    how = fitting_words([own["text"] for own in truth], [own["spans"] for own in truth])
    number = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((3, len(truth), 1 + 2 * len(labels)))
    for row, pair in enumerate(zip(truth, answers, strict=True)):
        words = words_of(pair[0]["text"], how)
        true, found = (tags_of(own["spans"], words, number) for own in pair)
        for place, some in enumerate((true[true == found], true, found)):
            counts[place, row] = np.bincount(some, minlength=counts.shape[2])
    return counts


def _tags(labels: Sequence[str]) -> list[str]:
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


CHECK = Check(
    "table",
    needs=("spans",),
    measures=tuple(f"token_{name}_f1" for name in AVERAGES),
    run=spans_table,
)
