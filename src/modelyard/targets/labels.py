"""Labels: any number of labels for each row, none to all of them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from modelyard.core.errors import TooFewClasses
from modelyard.core.intervals import wilson
from modelyard.runtime.encoded import Encoded
from modelyard.targets import Baseline, Measure, State
from modelyard.targets.class_ import read_label, refuse_small

RESAMPLES = 1000
THRESHOLD = 0.5
STRATUM_ROWS = 5
SEPARATORS = ("|", ";", ",")
Hits = NDArray[np.bool_]


class LabelsAnswer(BaseModel):
    """The answer for one row."""

    labels: list[str] = Field(description="the labels that are more probable than not")
    scores: dict[str, float] = Field(description="the probability of each label, by itself")


class Labels:
    """The labels target."""

    kind = "labels"
    wire = LabelsAnswer
    main = steers = "micro_f1"
    measures = ("micro_f1", "macro_f1", "exact_match")
    chooses = "any of"
    reads = "rows"
    outputs = "labels"
    contradicts = True

    def read(self, value: Any, values: Mapping[str, Any]) -> list[str]:
        """A list, a JSON list, or names between bars, semicolons or commas; each label once.

        >>> [TARGET.read(value, {}) for value in ("billing; urgent", ["b", "a"], "[]")]
        [['billing', 'urgent'], ['a', 'b'], []]
        """
        parts = value if isinstance(value, list | tuple) else _parts(read_label(value))
        return sorted({name for name in (read_label(part).strip() for part in parts) if name})

    def names(self, truth: list[str]) -> list[str]:
        """The row's labels."""
        return list(truth)

    def amounts(self, truths: Sequence[Any]) -> None:
        """Labels are no numbers."""
        return

    def strata(self, truths: Sequence[Sequence[str]]) -> list[str]:
        """Each row's rarest label; labels too rare for every part are one stratum.

        In the spirit of Sechidis, K. et al. (2011), On the stratification of multi-label data.
        """
        counts = _counts(truths)
        rarest = [min(own, key=lambda label: (counts[label], label), default="") for own in truths]
        sizes = Counter(rarest)
        [(largest, _)] = sizes.most_common(1)
        return [name if sizes[name] >= STRATUM_ROWS else largest for name in rarest]

    def check(self, truths: Sequence[Sequence[str]]) -> None:
        """Refuse labels that cannot be learned: TooFewClasses, ClassTooSmall."""
        counts = _counts(truths)
        if all(count == len(truths) for count in counts.values()):
            raise TooFewClasses(
                "A labels target needs a label that some rows have and others have not; name "
                "another target column, or add other rows."
            )
        refuse_small(counts, "labels")

    def learn(self, truths: Sequence[Sequence[str]]) -> State:
        """The labels in sorted order, how often each occurs, and the number of rows."""
        counts = _counts(truths)
        labels = sorted(counts)
        return {"labels": labels, "counts": [counts[n] for n in labels], "rows": len(truths)}

    def width(self, state: State) -> int:
        """One output for each label."""
        return len(state["labels"])

    def config(self, state: State) -> dict[str, Any]:
        """Labels by number and numbers by label, as transformers wants them."""
        labels = state["labels"]
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": "multi_label_classification",
        }

    def truth(
        self, truths: Sequence[Sequence[str]], state: State, encoded: Encoded
    ) -> NDArray[np.float32]:
        """1 where a row has a label, else 0 (B, C)."""
        return _has(truths, state["labels"]).astype(np.float32)

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """Binary cross-entropy of each row (B,), the mean over its labels."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        weights = None
        if options.get("class_weights") == "balanced":
            counts = torch.tensor(state["counts"], dtype=torch.float32)
            weights = (state["rows"] - counts).clamp_min(1) / counts
        smooth = float(options.get("label_smoothing", 0.0))
        return binary_cross_entropy_with_logits(
            outputs, truth * (1 - smooth) + smooth / 2, pos_weight=weights, reduction="none"
        ).mean(1)

    def decode(self, outputs: NDArray[np.float32], state: State) -> list[dict[str, Any]]:
        """Outputs (B, C) as labels and scores: the logistic function of each output."""
        shares = 0.5 * (1 + np.tanh(0.5 * outputs.astype(np.float64)))
        return _answers(shares, state["labels"])

    def score(
        self, truth: Sequence[Sequence[str]], answers: Sequence[Mapping[str, Any]]
    ) -> list[Measure]:
        """Micro and macro F1 (bootstrap over rows), and the share of rows with no mistake."""
        found = [answer["labels"] for answer in answers]
        labels = sorted(_counts([*truth, *found]))
        is_so, called = _has(truth, labels), _has(found, labels)
        rows, exact = len(truth), int((is_so == called).all(1).sum())
        match = Measure("exact_match", exact / max(1, rows), *wilson(exact, rows), rows)
        values, lows, highs = _f1_intervals(is_so, called)
        measures = [
            Measure(name, float(v), float(low) if exact < rows else match.low, float(high), rows)
            for name, v, low, high in zip(self.measures, values, lows, highs, strict=False)
        ]
        return [*measures, match]

    def baselines(
        self,
        name: str,
        features: Any,
        truths: Sequence[Sequence[str]],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """Each label as often as it occurs; logistic regression; of tables boosted trees too."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        labels = sorted(_counts(truths))
        has = _has(truths, labels)
        rows = test_features.shape[0]
        plain: dict[str, Any] = {"logistic regression": LogisticRegression(max_iter=1000)}
        if isinstance(features, np.ndarray):
            plain["boosted trees"] = HistGradientBoostingClassifier(random_state=0)
        learned = {
            what: np.column_stack([_share(model, features, own, test_features) for own in has.T])
            for what, model in plain.items()
        }
        return [
            Baseline("most frequent labels", _answers(np.tile(has.mean(0), (rows, 1)), labels)),
            *(
                Baseline(f"{name} with {what} for each label", _answers(shares, labels))
                for what, shares in learned.items()
            ),
        ]


def _parts(text: str) -> Sequence[Any]:
    """The names in a text; raises ValueError where it is a list that cannot be read."""
    if text.strip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("holds a list that is not JSON") from None
        return found if isinstance(found, list) else [found]
    separator = next((each for each in SEPARATORS if each in text), None)
    return text.split(separator) if separator else [text]


def _counts(truths: Sequence[Sequence[str]]) -> Counter[str]:
    return Counter(label for own in truths for label in own)


def _has(truths: Sequence[Sequence[str]], labels: Sequence[str]) -> Hits:
    """Which rows have which labels (B, C); labels that are not listed are left out."""
    number = {label: position for position, label in enumerate(labels)}
    found = np.zeros((len(truths), len(labels)), dtype=bool)
    for row, own in enumerate(truths):
        found[row, [number[label] for label in own if label in number]] = True
    return found


def _answers(shares: NDArray[np.float64], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "labels": [n for n, share in zip(labels, row, strict=True) if share > THRESHOLD],
            "scores": dict(zip(labels, row, strict=True)),
        }
        for row in shares.tolist()
    ]


def _share(
    model: Any, features: Any, own: NDArray[np.bool_], test_features: Any
) -> NDArray[np.float64]:
    """A label's probability for each test row, by a model of scikit-learn."""
    if own.all() or not own.any():
        return np.full(test_features.shape[0], float(own[0]))
    found: NDArray[np.float64] = model.fit(features, own).predict_proba(test_features)[:, 1]
    return found


def _f1_intervals(is_so: Hits, called: Hits) -> tuple[NDArray[np.float64], ...]:
    """Micro and macro F1 (2,), and the low and high ends of their 95 % intervals."""
    sums = np.stack([is_so & called, is_so, called]).astype(np.float64)  # (3, B, C)
    rows = len(is_so)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
    low, high = np.quantile(_micro_and_macro_f1(drawn @ sums), [0.025, 0.975], axis=1)
    return _micro_and_macro_f1(sums.sum(1, keepdims=True))[:, 0], low, high


def _micro_and_macro_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 over all labels together, and averaged over those that occur: (2, R) from (3, R, C)."""
    hits, either = sums[0], sums[1] + sums[2]
    f1 = 2 * hits / np.maximum(1, either)
    micro = 2 * hits.sum(1) / np.maximum(1, either.sum(1))
    return np.array([micro, f1.sum(1) / np.maximum(1, (either > 0).sum(1))])


TARGET = Labels()
