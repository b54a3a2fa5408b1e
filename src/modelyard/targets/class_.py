"""Class: one of several labels for each row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from modelyard.core.errors import ClassTooSmall, TooFewClasses
from modelyard.core.intervals import wilson
from modelyard.runtime.encoded import Encoded
from modelyard.targets import Baseline, Measure, State

RESAMPLES = 1000
FEWEST_ROWS = 3


class ClassAnswer(BaseModel):
    """The answer for one row."""

    label: str = Field(description="the most probable label")
    score: float = Field(ge=0, le=1, description="its probability")
    scores: dict[str, float] = Field(description="the probability of each label")


class Class:
    """The class target."""

    kind = "class"
    wire = ClassAnswer
    main = steers = "accuracy"
    measures = ("accuracy", "macro_f1", "weighted_f1")
    chooses = "one of"
    reads = "rows"
    outputs = "classes"
    contradicts = True

    def read(self, value: Any, values: Mapping[str, Any]) -> str:
        """A label is one value, and one that can be written."""
        return read_label(value)

    def names(self, truth: str) -> list[str]:
        """The row's one class."""
        return [truth]

    def amounts(self, truths: Sequence[Any]) -> None:
        """Classes are no numbers."""
        return

    def strata(self, truths: Sequence[str]) -> list[str]:
        """Each class is a stratum."""
        return list(truths)

    def check(self, values: Sequence[Any]) -> None:
        """Refuse labels that cannot be learned: TooFewClasses, ClassTooSmall."""
        counts = Counter(map(str, values))
        if len(counts) < 2:
            found = ", ".join(repr(label) for label in counts) or "none"
            raise TooFewClasses(
                f"A class target needs two classes or more, and the rows have {len(counts)} "
                f"({found}); name another target column or add rows of another class."
            )
        refuse_small(counts, "classes")

    def learn(self, values: Sequence[Any]) -> State:
        """The labels in sorted order and how often each occurs."""
        counts = Counter(map(str, values))
        labels = sorted(counts)
        return {"labels": labels, "counts": [counts[label] for label in labels]}

    def width(self, state: State) -> int:
        """One output for each label."""
        return len(state["labels"])

    def config(self, state: State) -> dict[str, Any]:
        """Labels by number and numbers by label, as transformers wants them."""
        labels = state["labels"]
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }

    def truth(self, values: Sequence[Any], state: State, encoded: Encoded) -> NDArray[np.int64]:
        """The number of each label (B,); -1 for a label the training split has not."""
        number = {label: position for position, label in enumerate(state["labels"])}
        return np.array([number.get(str(value), -1) for value in values], dtype=np.int64)

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """Cross-entropy of each row (B,), with smoothing and class weights as asked.

        Szegedy, C. et al. (2016), Rethinking the Inception architecture, section 7 (smoothing).
        """
        import torch
        from torch.nn.functional import cross_entropy

        weights = None
        if options.get("class_weights") == "balanced":
            counts = torch.tensor(state["counts"], dtype=torch.float32)
            weights = counts.sum() / (len(counts) * counts)
        return cross_entropy(
            outputs,
            truth,
            weight=weights,
            reduction="none",
            ignore_index=-1,
            label_smoothing=float(options.get("label_smoothing", 0.0)),
        )

    def decode(self, outputs: NDArray[np.float32], state: State) -> list[dict[str, Any]]:
        """Outputs (B, C) as label, score and scores: the softmax of each row."""
        labels = state["labels"]
        shifted = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
        exponents = np.exp(shifted)
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=1)
        return [
            {"label": labels[top], "score": row[top], "scores": dict(zip(labels, row, strict=True))}
            for top, row in zip(best.tolist(), shares.tolist(), strict=True)
        ]

    def score(self, truth: Sequence[Any], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """Accuracy (Wilson interval), and macro and weighted F1 (bootstrap interval)."""
        truths = [str(value) for value in truth]
        found = [str(answer["label"]) for answer in answers]
        rows = len(truths)
        right = sum(a == b for a, b in zip(truths, found, strict=True))
        measures = [Measure("accuracy", right / max(1, rows), *wilson(right, rows), rows)]
        confusion = _confusion(truths, found)
        lows, highs = _bootstrap(confusion)
        for name, value, low, high in zip(
            self.measures[1:], _macro_and_weighted_f1(confusion), lows, highs, strict=True
        ):
            low = low if right < rows else measures[0].low  # nothing to resample without mistakes
            measures.append(Measure(name, float(value), float(low), float(high), rows))
        return measures

    def baselines(
        self,
        name: str,
        features: Any,
        values: Sequence[Any],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """Always the most frequent label; logistic regression; of tables boosted trees too."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        labels = [str(value) for value in values]
        plain = {"logistic regression": LogisticRegression(max_iter=1000)}
        if isinstance(features, np.ndarray):
            plain["boosted trees"] = HistGradientBoostingClassifier(random_state=0)
        counts = Counter(map(str, values))
        top, _ = max(counts.items(), key=lambda item: (item[1], item[0]))
        shares = {label: count / len(values) for label, count in sorted(counts.items())}
        majority = {"label": top, "score": shares[top], "scores": shares}
        learned = [
            Baseline(f"{name} with {what}", _plain(model.fit(features, labels), test_features))
            for what, model in plain.items()
        ]
        return [Baseline("majority class", [majority] * test_features.shape[0]), *learned]


def _plain(model: Any, features: Any) -> list[dict[str, Any]]:
    """Answers of a scikit-learn model for rows with these features (B, F)."""
    labels = [str(label) for label in model.classes_]
    return [
        {
            "label": labels[int(row.argmax())],
            "score": float(row.max()),
            "scores": dict(zip(labels, row.tolist(), strict=True)),
        }
        for row in model.predict_proba(features)
    ]


def refuse_small(counts: Mapping[str, int], them: str) -> None:
    """Refuse classes or labels with too few rows for three parts: ClassTooSmall."""
    small = sorted(label for label, count in counts.items() if count < FEWEST_ROWS)
    if small:
        shown = ", ".join(f"{label!r} ({counts[label]})" for label in small[:5])
        raise ClassTooSmall(
            f"{len(small)} of {len(counts)} {them} have fewer than {FEWEST_ROWS} rows: {shown}; "
            "each needs one row to train, one to validate and one to test: add rows, or join or "
            "remove them."
        )


def read_label(value: Any) -> str:
    """A label as text; raises ValueError where it is several values or cannot be written.

    >>> read_label(True), read_label("spam")
    ('True', 'spam')
    """
    label = str(value)
    if isinstance(value, dict | list | bytes) or label.encode("utf-8", "ignore").decode() != label:
        raise ValueError(f"holds {type(value).__name__}")
    return label


def _confusion(truths: Sequence[str], found: Sequence[str]) -> NDArray[np.int64]:
    labels = sorted({*truths, *found})
    number = {label: position for position, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, ([number[t] for t in truths], [number[f] for f in found]), 1)
    return confusion


def _macro_and_weighted_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 averaged over the classes that occur, and averaged by their rows: (2,)."""
    support = confusion.sum(axis=1)
    either = support + confusion.sum(axis=0)
    f1 = 2.0 * confusion.diagonal() / np.maximum(1, either)
    return np.array([f1.sum() / max(1, np.count_nonzero(either)), f1 @ support / support.sum()])


def _bootstrap(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """The 95 % intervals (2, 2), low ends first, of macro and weighted F1 over the rows."""
    cells, rows = np.flatnonzero(confusion), confusion.sum()
    shares = confusion.flat[cells] / rows
    found = np.empty((RESAMPLES, 2))
    for number, drawn in enumerate(np.random.default_rng(0).multinomial(rows, shares, RESAMPLES)):
        resampled = np.zeros_like(confusion)
        resampled.flat[cells] = drawn
        found[number] = _macro_and_weighted_f1(resampled)
    return np.quantile(found, [0.025, 0.975], axis=0)


TARGET = Class()
