"""The table for rows with several labels: precision, recall, F1 and support of each label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.checks.table import RESAMPLES, averages_of, class_row, resampled_figures, share

Hits = NDArray[np.float64]


def labels_table(truth: Sequence[Sequence[str]], answers: Answers) -> Finding:
    """Precision, recall and F1 of each label, and their micro, macro and weighted averages.

    Figures and intervals are as in `table`, but for the micro average, which is no accuracy here:
    its intervals, as those of the other averages, are of 1,000 bootstrap samples of the rows.
    """
    found = [answer["labels"] for answer in answers]
    labels = sorted({label for own in (*truth, *found) for label in own})
    is_so, called = _has(truth, labels), _has(found, labels)
    told, _ = lines_of(labels, np.stack([is_so * called, is_so, called]))
    return Finding((), {"rows": len(truth), **told})


def lines_of(labels: Sequence[str], counts: Hits) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table's lines from counts (3, B, C) of each row: found rightly, so, found.

    The lines of classes and of averages, and the averages' figures by name.
    """
    rows = counts.shape[1]
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
    observed, resampled = counts.sum(1, keepdims=True), drawn @ counts
    of_all, of_samples = _averages(observed), _averages(resampled)
    figures = {
        name: resampled_figures(of_all[name][:, 0], of_samples[name], rows) for name in of_all
    }
    support = int(observed[1].sum())
    classes = [
        class_row(label, *(int(count[0, number]) for count in observed))
        for number, label in enumerate(labels)
    ]
    averages = [{"name": name, **own, "support": support} for name, own in figures.items()]
    return {"classes": classes, "averages": averages}, figures


def _has(named: Sequence[Sequence[str]], labels: Sequence[str]) -> Hits:
    """1 where a row has a label (B, C)."""
    return np.array([[float(label in own) for label in labels] for own in map(set, named)])


def _averages(counts: Hits) -> dict[str, Hits]:
    """Precision, recall and F1 (3, R) by the name of the average, from counts (3, R, C)."""
    hits, support, found = counts.sum(2)
    micro = np.stack([share(hits, found), share(hits, support), share(2 * hits, support + found)])
    return {"micro": micro, **averages_of((counts[0], counts[1], counts[2]))}


CHECK = Check("table", needs=("labels",), measures=(), run=labels_table)
