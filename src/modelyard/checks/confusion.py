"""The confusion matrix: which class is taken for which."""

from collections import Counter
from collections.abc import Sequence

from modelyard.checks import Answers, Check, Finding

MOST_PAIRS = 10


def confusion(truth: Sequence[str], answers: Answers) -> Finding:
    """Counts (C, C) of true class by found class, and the pairs confused most."""
    found = [str(answer["label"]) for answer in answers]
    labels = sorted({*truth, *found})
    counts = Counter(zip(truth, found, strict=True))
    support = Counter(truth)
    wrong = sorted((pair for pair in counts if pair[0] != pair[1]), key=lambda p: (-counts[p], p))
    pairs = [
        {"truth": true, "label": label, "count": counts[true, label], "support": support[true]}
        for true, label in wrong[:MOST_PAIRS]
    ]
    matrix = [[counts[true, label] for label in labels] for true in labels]
    return Finding((), {"labels": labels, "counts": matrix, "pairs": pairs, "rows": len(truth)})


CHECK = Check("confusion", needs=("label",), measures=(), run=confusion)
