"""Spans: pieces of a text that are named, each with a label; they do not overlap.

Outside they are a start, an end and a label, in characters; inside, each word has a tag, for which
the network answers at the word's first token.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from modelyard.core.errors import TooFewClasses
from modelyard.core.intervals import wilson
from modelyard.runtime.encoded import Encoded, Ragged, TokenOutputs
from modelyard.runtime.tags import (
    Places,
    best_tags,
    fitting_words,
    ranges_of,
    tags_of,
    units_of,
    words_of,
)
from modelyard.targets import Baseline, Measure, State
from modelyard.targets.class_ import read_label, refuse_small
from modelyard.targets.labels import TARGET as LABELS

RESAMPLES = 1000
UNREAD = -1
"""The truth of a token that is not asked for its word's tag."""
FORMS = '{"start": 0, "end": 6, "label": "PLACE"}, or [0, 6, "PLACE"]'
Truth = Mapping[str, Any]
"""A row's `text`, and its `spans` as start, end and label, from left to right."""
Span = dict[str, Any]


class SpanAnswer(BaseModel):
    """One span of a text."""

    start: int = Field(ge=0, description="where it begins, in characters from 0")
    end: int = Field(ge=1, description="the first character after it")
    text: str = Field(description="what stands there")
    label: str = Field(description="what it is")
    score: float = Field(ge=0, le=1, description="the probability of just this span")


class SpansAnswer(BaseModel):
    """The answer for one row."""

    spans: list[SpanAnswer] = Field(description="the text's spans, from left to right")


class Spans:
    """The spans target."""

    kind = "spans"
    wire = SpansAnswer
    main = steers = "entity_f1"
    measures = ("entity_f1", "entity_precision", "entity_recall")
    chooses = "spans of"
    reads = "tokens"
    outputs = "tokens"
    contradicts = False  # a slip of an annotator's pen is no reason to lose every such text

    def read(self, value: Any, values: Mapping[str, Any]) -> Truth:
        """A list of spans, or such a list as JSON, beside the one text they stand in.

        A span is an object with start, end and label, or a list of them; or, as in CLUENER, all
        are an object of labels, of texts, of starts and last characters.

        >>> TARGET.read([[0, 6, "PLACE"]], {"text": "Berlin calls"})["spans"]
        [{'start': 0, 'end': 6, 'label': 'PLACE'}]
        """
        text = str(next(iter(values.values())))
        spans = [_trimmed(span, text) for span in _listed(value, text)]
        spans.sort(key=lambda span: (span["start"], span["end"]))
        for before, span in pairwise(spans):
            if span["start"] < before["end"]:
                raise ValueError(f"holds spans that overlap: {_said(before)} and {_said(span)}")
        return {"text": text, "spans": spans}

    def names(self, truth: Truth) -> list[str]:
        """The labels of the row's spans, each once."""
        return sorted({span["label"] for span in truth["spans"]})

    def amounts(self, truths: Sequence[Any]) -> None:
        """Spans are no numbers."""
        return

    def strata(self, truths: Sequence[Truth]) -> list[str]:
        """Each row's rarest label."""
        return LABELS.strata(list(map(self.names, truths)))

    def check(self, truths: Sequence[Truth]) -> None:
        """Refuse spans that cannot be learned: TooFewClasses, ClassTooSmall."""
        counts = Counter(name for truth in truths for name in self.names(truth))
        if not counts:
            raise TooFewClasses(
                "A spans target needs rows that have a span, and none has one; name another "
                "target column, or add rows with spans."
            )
        refuse_small(counts, "labels")

    def learn(self, truths: Sequence[Truth]) -> State:
        """The labels in sorted order, what a word is, and how many words have which tag."""
        labels = sorted({span["label"] for truth in truths for span in truth["spans"]})
        texts, spans = ([truth[key] for truth in truths] for key in ("text", "spans"))
        state: State = {"labels": labels, "words": fitting_words(texts, spans)}
        counts = np.zeros(self.width(state), dtype=np.int64)
        for text, own in zip(texts, spans, strict=True):
            words = words_of(text, state["words"])
            counts += np.bincount(tags_of(own, words, _numbers(state)), minlength=len(counts))
        return {**state, "counts": counts.tolist()}

    def width(self, state: State) -> int:
        """One output for each tag: O, and two for each label."""
        return 1 + 2 * len(state["labels"])

    def config(self, state: State) -> dict[str, Any]:
        """Tags by number and numbers by tag, as transformers wants them."""
        tags = ["O", *(f"{prefix}-{label}" for label in state["labels"] for prefix in "BI")]
        return {
            "id2label": dict(enumerate(tags)),
            "label2id": {tag: number for number, tag in enumerate(tags)},
        }

    def truth(self, truths: Sequence[Truth], state: State, encoded: Encoded) -> Ragged:
        """The tag of each word at its first token, UNREAD at all other tokens of a row."""
        assert encoded.places is not None
        places = encoded.places.spans.values
        row_of = np.repeat(encoded.row_of, encoded.lengths)
        ends = np.bincount(row_of, minlength=len(truths)).cumsum()
        found = np.full(len(places), UNREAD, dtype=np.int32)
        for truth, start, end in zip(truths, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            stands = start + np.flatnonzero(places[start:end, 1] > places[start:end, 0])
            words = words_of(truth["text"], state["words"])
            first, units = units_of(words, places[stands])
            found[stands[first]] = tags_of(truth["spans"], units, _numbers(state))
        return Ragged(found, ends, fill=UNREAD)

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """Loss of each row (B,): the mean of its words' cross-entropies, from (B, T, C), (B, T)."""
        import torch
        from torch.nn.functional import cross_entropy

        weights = None
        if options.get("class_weights") == "balanced":
            counts = torch.tensor(state["counts"], dtype=torch.float32).clamp_min(1)
            weights = counts.sum() / (len(counts) * counts)
        of_words = cross_entropy(
            outputs.flatten(0, 1),
            truth.flatten(),
            weight=weights,
            reduction="none",
            ignore_index=UNREAD,
            label_smoothing=float(options.get("label_smoothing", 0.0)),
        )
        return of_words.view(truth.shape).sum(1) / (truth != UNREAD).sum(1).clamp_min(1)

    def decode(self, outputs: TokenOutputs, state: State) -> list[dict[str, Any]]:
        """Outputs (N, C) of the tokens of B texts as the likeliest spans of each.

        A span's score is the probability of its words' tags, and that it ends there, as if each
        word were tagged by itself.
        """
        units = list(_units(outputs, state["words"]))
        ends = np.array([len(own) for _, own in units], dtype=np.int64).cumsum()
        first = np.concatenate([[], *(tokens for tokens, _ in units)]).astype(np.int64)
        log_shares = _log_shares(outputs.values[first].astype(np.float64))
        tags = best_tags(log_shares, ends)
        return [
            {"spans": list(_spans(text, own, tags[start:end], log_shares[start:end], state))}
            for text, (_, own), start, end in zip(
                outputs.texts, units, [0, *ends[:-1].tolist()], ends.tolist(), strict=True
            )
        ]

    def score(self, truth: Sequence[Truth], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """F1, precision and recall of spans, each right in both ends and label or wrong.

        All spans together, as conlleval counts them; bootstrap over the rows.
        """
        counts = np.array([_counts(*pair) for pair in zip(truth, answers, strict=True)])
        rows, exact = len(counts), int((counts[:, 0] * 2 == counts[:, 1:].sum(1)).sum())
        values, (lows, highs) = _figures(counts.sum(0)), _bootstrap(counts)
        least = wilson(exact, rows)[0]  # nothing to resample without mistakes
        return [
            Measure(name, float(v), float(low) if exact < rows else least, float(high), rows)
            for name, v, low, high in zip(self.measures, values, lows, highs, strict=True)
        ]

    def baselines(
        self,
        name: str,
        features: Any,
        truths: Sequence[Truth],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """A dictionary of the training rows' spans: the longest that stands in a text is found."""
        known = _dictionary(truths)
        [texts] = test_values.values()
        answers = [{"spans": list(_looked_up(str(text), known))} for text in texts]
        return [Baseline("dictionary of the training rows' spans", answers)]


def _numbers(state: State) -> dict[str, int]:
    return {label: number for number, label in enumerate(state["labels"])}


def _listed(value: Any, text: str) -> Iterator[Span]:
    """The spans of a raw value; raises ValueError where they cannot be read."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"holds text that is not JSON; write a list of {FORMS}") from None
    if isinstance(value, Mapping):
        yield from _by_label(value, text)
        return
    if not isinstance(value, list | tuple):
        raise ValueError(f"holds {type(value).__name__}, not a list of spans such as {FORMS}")
    for each in value:
        yield _read_span(each)


def _read_span(each: Any) -> Span:
    names = ("start", "end", "label")
    if isinstance(each, Mapping) and all(name in each for name in names):
        start, end, label = (each[name] for name in names)
    elif isinstance(each, list | tuple) and len(each) == 3:
        start, end, label = each
    else:
        raise ValueError(f"holds {_short(each)}, which is no span; write {FORMS}")
    if not (_is_place(start) and _is_place(end)):
        raise ValueError(f"holds {_short(each)}, whose start and end are not whole numbers")
    return {"start": start, "end": end, "label": _label(label)}


def _by_label(value: Mapping[str, Any], text: str) -> Iterator[Span]:
    """Spans as {label: {text: [[start, last character]]}}: taken where the texts stand there."""
    for label, own in value.items():
        if not isinstance(own, Mapping) or not all(isinstance(p, list) for p in own.values()):
            raise ValueError(f"holds an object, not a list of spans such as {FORMS}")
        for said, places in own.items():
            for place in places:
                is_pair = isinstance(place, list) and len(place) == 2 and all(map(_is_place, place))
                if not is_pair or text[place[0] : place[1] + 1] != said:
                    raise ValueError(
                        f"says that {said!r} stands at {_short(place)}, first and last character, "
                        "where the text has something else"
                    )
                yield {"start": place[0], "end": place[1] + 1, "label": _label(label)}


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _label(value: Any) -> str:
    label = read_label(value).strip() if value is not None else ""
    if not label:
        raise ValueError("holds a span without a label")
    return label


def _trimmed(span: Span, text: str) -> Span:
    """A span that lies within its text, without white space at its ends."""
    start, end = span["start"], span["end"]
    if not 0 <= start < end <= len(text):
        raise ValueError(
            f"holds {_said(span)}, which is no part of the text with its {len(text):,} characters"
        )
    said = text[start:end]
    if not said.strip():
        raise ValueError(f"holds {_said(span)}, where the text has white space alone")
    start += len(said) - len(said.lstrip())
    return {**span, "start": start, "end": start + len(said.strip())}


def _said(span: Span) -> str:
    return f"{span['label']} from {span['start']} to {span['end']}"


def _short(value: Any) -> str:
    return repr(value)[:80]


def _units(outputs: TokenOutputs, how: str) -> Iterator[tuple[NDArray[np.int64], Places]]:
    """Of each text the first token of each word, among all tokens, and the words' places."""
    starts = [0, *outputs.ends[:-1].tolist()]
    for text, start, end in zip(outputs.texts, starts, outputs.ends.tolist(), strict=True):
        first, units = units_of(words_of(text, how), outputs.spans[start:end])
        yield start + first, units


def _log_shares(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probabilities (N, C)."""
    shifted = outputs - outputs.max(axis=1, keepdims=True, initial=-np.inf)
    shares: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shares


def _spans(
    text: str,
    units: Places,
    tags: NDArray[np.int64],
    log_shares: NDArray[np.float64],
    state: State,
) -> Iterator[dict[str, Any]]:
    """The spans that a text's tags say, each with its score."""
    for first, after, number in ranges_of(tags):
        likely = log_shares[np.arange(first, after), tags[first:after]].sum()
        if after < len(tags):
            likely += np.log1p(-np.exp(min(log_shares[after, 2 * number + 2], -1e-12)))
        start, end = int(units[first, 0]), int(units[after - 1, 1])
        yield {
            "start": start,
            "end": end,
            "text": text[start:end],
            "label": state["labels"][number],
            "score": min(1.0, float(np.exp(likely))),
        }


def _counts(truth: Truth, answer: Mapping[str, Any]) -> tuple[int, int, int]:
    """Spans found rightly, spans found, and spans that are so."""
    found, true = (
        {(span["start"], span["end"], span["label"]) for span in own["spans"]}
        for own in (answer, truth)
    )
    return len(found & true), len(found), len(true)


def _figures(counts: NDArray[Any]) -> NDArray[np.float64]:
    """F1, precision and recall (3, ...) from counts (..., 3)."""
    hits, found, true = np.moveaxis(counts, -1, 0)
    of = (found + true) / 2, found, true
    return np.stack([hits / np.maximum(each, 0.5) for each in of])


def _bootstrap(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The low and the high ends of the 95 % intervals (2, 3)."""
    rows, rng = len(counts), np.random.default_rng(0)
    sums = np.array([counts[rng.integers(rows, size=rows)].sum(0) for _ in range(RESAMPLES)])
    ends: NDArray[np.float64] = np.quantile(_figures(sums), [0.025, 0.975], axis=1)
    return ends


def _dictionary(truths: Sequence[Truth]) -> dict[str, Counter[str]]:
    """What the spans of some rows say, and how often with which label."""
    known: dict[str, Counter[str]] = {}
    for truth in truths:
        for span in truth["spans"]:
            said = truth["text"][span["start"] : span["end"]]
            known.setdefault(said, Counter())[span["label"]] += 1
    return known


def _looked_up(text: str, known: Mapping[str, Counter[str]]) -> Iterator[dict[str, Any]]:
    """The longest known spans of a text, from left to right."""
    words = words_of(text, "fine")
    starts, ends = words[:, 0].tolist(), words[:, 1].tolist()
    most = max(map(len, known))
    reached = 0
    for place, start in enumerate(starts):
        if start < reached:
            continue
        within = [end for end in ends[place:] if end - start <= most]
        end = next((end for end in reversed(within) if text[start:end] in known), None)
        if end is not None:
            labels = known[text[start:end]]
            label, times = max(labels.items(), key=lambda item: (item[1], item[0]))
            said = {"start": start, "end": end, "text": text[start:end], "label": label}
            yield {**said, "score": times / labels.total()}
            reached = end


TARGET = Spans()
