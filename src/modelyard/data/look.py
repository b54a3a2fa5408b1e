"""The data report: what the rows are like, each number with what it was measured on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelyard.core.intervals import wilson
from modelyard.data.encodings import Encoding
from modelyard.data.same import METHOD, Alike
from modelyard.data.split import PARTS, TRAIN, Parted

PERCENTILES = (5, 25, 50, 75, 95, 99)
LANGUAGE_ROWS = 1000
RARE = 0.01
EXAMPLES = 5
EXCERPT_CHARACTERS = 160
MOST_CLASSES = 1000
MOST_VALUES = 10


@dataclass(frozen=True)
class Truths:
    """What is to be learned of N rows: the classes each has, and numbers where those are it."""

    classes: Sequence[Sequence[str]]
    amounts: Sequence[float] | None = None


@dataclass(frozen=True)
class Told:
    """An input column of N rows: its kind, its values (None where missing), the words in each."""

    kind: str
    values: Sequence[Any]
    words: Sequence[str]


@dataclass(frozen=True)
class Kept:
    """The rows that were kept: N places, N truths, and N values for each input column."""

    places: Sequence[str]
    truths: Truths
    inputs: Mapping[str, Told]

    @property
    def texts(self) -> list[str]:
        """The words in each of the N rows, as one text."""
        columns = [told.words for told in self.inputs.values() if any(told.words)]
        return ["\n".join(words) for words in zip(*columns, strict=True)]


def report(
    kept: Kept, parted: Parted, alike: Sequence[Alike], refused: Mapping[str, int], seed: int
) -> dict[str, Any]:
    """What is told of prepared rows; `refused` counts refused rows by reason."""
    rows, gone = len(kept.places), sum(refused.values())
    return {
        "rows": {"read": rows + gone, "kept": rows, "refused": gone, "measured_on": "all rows"},
        "refused": dict(sorted(refused.items())),
        "split": _split(parted),
        "classes": _classes(kept.truths.classes, parted),
        "labels_alike": labels_alike([name for names in kept.truths.classes for name in names]),
        "amounts": _of_parts(kept.truths.amounts, parted) if kept.truths.amounts else None,
        "characters": {
            name: _of_parts([len(words) for words in told.words], parted)
            for name, told in kept.inputs.items()
            if any(told.words)
        },
        "columns": {name: _column(told) for name, told in kept.inputs.items()},
        "near_duplicates": _near(kept, parted, alike),
        "languages": languages(kept.texts, seed) if kept.texts else None,
    }


def _column(told: Told) -> dict[str, Any]:
    """A column's missing values, and percentiles of its numbers or its most frequent values."""
    known = [value for value in told.values if value is not None]
    found = {"kind": told.kind, "rows": len(told.values), "missing": len(told.values) - len(known)}
    if all(isinstance(value, float) for value in known):
        return found | {"amounts": _percentiles(np.array(known))}
    if any(told.words) or not all(isinstance(value, str) for value in known):
        return found
    counts = Counter(known)
    return found | {"distinct": len(counts), "values": counts.most_common(MOST_VALUES)}


def of_encoding(encoding: Encoding | None) -> dict[str, Any] | None:
    """An encoding as JSON."""
    return asdict(encoding) if encoding else None


def _split(parted: Parted) -> dict[str, Any]:
    counts = {name: int((parted.part == place).sum()) for place, name in enumerate(PARTS)}
    return {
        "way": parted.way,
        "rows": counts,
        "moved_to_training": len(parted.moved),
        "groups_joined": parted.groups_joined,
        "measured_on": f"{len(parted.part):,} kept rows",
    }


def _classes(names: Sequence[Sequence[str]], parted: Parted) -> list[dict[str, Any]]:
    """Rows of each class by part, the largest class first."""
    counts: dict[str, Counter[str]] = {}
    for own, place in zip(names, parted.part, strict=True):
        for label in own:
            counts.setdefault(label, Counter())[PARTS[place]] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return [
        {"label": label, "rows": by.total(), "share": round(by.total() / len(names), 4)}
        | {part: by[part] for part in PARTS}
        for label, by in ordered[:MOST_CLASSES]
    ]


def labels_alike(labels: Sequence[str]) -> list[list[str]]:
    """Labels that differ only by case or white space.

    >>> labels_alike(["Good", "good ", "bad"])
    [['Good', 'good ']]
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault(" ".join(label.casefold().split()), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _of_parts(values: Sequence[float], parted: Parted) -> dict[str, Any]:
    """The percentiles of N values in each part."""
    of_part = np.array(values)
    return {name: _percentiles(of_part[parted.part == place]) for place, name in enumerate(PARTS)}


def _percentiles(values: Any) -> dict[str, Any]:
    if not len(values):
        return {"rows": 0}
    points = np.percentile(values, PERCENTILES)
    return {
        "rows": len(values),
        "mean": _short(values.mean()),
        **{f"p{p}": _short(v) for p, v in zip(PERCENTILES, points, strict=True)},
        "min": _short(values.min()),
        "max": _short(values.max()),
    }


def _short(value: float) -> float:
    """A number with five digits, and one decimal at least."""
    return float(f"{value:.5g}") if abs(value) < 1000 else round(float(value), 1)


def _near(kept: Kept, parted: Parted, alike: Sequence[Alike]) -> dict[str, Any]:
    """Rows almost equal to an earlier one, and how many of them stand across parts.

    Without words nobody has looked for such: there is no method then.
    """
    leader = {each.index: each.first for each in alike}
    trained = {leader.get(i, i) for i, place in enumerate(parted.part) if place == TRAIN}
    like_training = [
        PARTS[place]
        for i, place in enumerate(parted.part)
        if place != TRAIN and leader.get(i, i) in trained
    ]
    return {
        "method": METHOD if kept.texts else None,
        "measured_on": f"{len(kept.places):,} kept rows",
        "rows": len(alike),
        "other_label": sum(
            kept.truths.classes[e.index] != kept.truths.classes[e.first] for e in alike
        ),
        "like_a_training_row": {part: like_training.count(part) for part in PARTS[1:]},
        "examples": [_example(kept, each) for each in _telling(alike)],
    }


def _telling(alike: Sequence[Alike]) -> list[Alike]:
    """The least alike are those a person should judge."""
    return sorted(alike, key=lambda each: (each.similarity, each.index))[:EXAMPLES]


def _example(kept: Kept, each: Alike) -> dict[str, Any]:
    texts = (kept.texts[index][:EXCERPT_CHARACTERS] for index in (each.first, each.index))
    return {
        "places": [kept.places[each.first], kept.places[each.index]],
        "texts": list(texts),
        "similarity": round(each.similarity, 3),
    }


def languages(texts: Sequence[str], seed: int) -> dict[str, Any]:
    """The languages of a sample of texts, each share with its 95 % interval.

    A language is told for each text alone, so short texts are sometimes taken for another one;
    languages of less than one text in a hundred are told together as "other".
    """
    from py3langid import classify

    size = min(LANGUAGE_ROWS, len(texts))
    drawn = np.random.default_rng(seed).choice(len(texts), size=size, replace=False)
    found = Counter(classify(texts[i][:2000])[0] for i in sorted(drawn))
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    told = [(language, rows) for language, rows in ordered if rows >= RARE * size]
    if left := size - sum(rows for _, rows in told):
        told.append(("other", left))
    shares = [
        {"language": language, "rows": rows, "share": round(rows / size, 4)}
        | dict(zip(("low", "high"), (round(end, 4) for end in wilson(rows, size)), strict=True))
        for language, rows in told
    ]
    measured_on = f"{size:,} of {len(texts):,} kept rows, drawn at random"
    return {"measured_on": measured_on, "shares": shares}
