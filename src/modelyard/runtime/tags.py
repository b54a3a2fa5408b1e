"""Words of a text, and tags of words: how spans in characters become what a network learns.

The tags are numbers: 0 for a word outside of spans, and for the n-th label 2 n + 1 for the first
word of a span and 2 n + 2 for each further one: O, B-LABEL and I-LABEL (Ramshaw and Marcus 1995,
in the form of Tjong Kim Sang and Veenstra 1999).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.signedinteger[Any]]
"""Starts and ends (K, 2) in characters, from left to right."""
Tags = NDArray[np.int64]
Span = Mapping[str, Any]
"""A span's `start`, `end` and `label`."""

HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
MARKS = (
    "!-/:-@\\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u2010-\u205e"
    "\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
WORDS = {
    "spaced": re.compile(rf"[{HAN}]|[^\s{HAN}]+"),
    "fine": re.compile(rf"[{HAN}]|[0-9]+|[{MARKS}]|[^\s0-9{HAN}{MARKS}]+"),
}
"""What a word is: what stands between spaces; or besides, digits, letters and marks apart."""
ALIGNED = 0.999


def words_of(text: str, how: str) -> Places:
    """The words of a text: a Chinese character is one, and the rest is parted as WORDS says.

    >>> words_of("in 北京.", "spaced").tolist(), words_of("U.S.", "fine").tolist()
    ([[0, 2], [3, 4], [4, 5], [5, 6]], [[0, 1], [1, 2], [2, 3], [3, 4]])
    """
    found = [match.span() for match in WORDS[how].finditer(text)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def fitting_words(texts: Iterable[str], spans: Iterable[Sequence[Span]]) -> str:
    """Which words the spans of some texts are made of: `spaced`, unless some cut such a word."""
    cut = whole = 0
    for text, own in zip(texts, spans, strict=True):
        words = words_of(text, "spaced") if own else words_of("", "spaced")
        starts, ends = set(words[:, 0].tolist()), set(words[:, 1].tolist())
        fits = [span["start"] in starts and span["end"] in ends for span in own]
        whole, cut = whole + sum(fits), cut + len(fits) - sum(fits)
    return "spaced" if whole >= ALIGNED * (whole + cut) else "fine"


def units_of(words: Places, tokens: Places) -> tuple[NDArray[np.int64], Places]:
    """The first token (U,) of each word that has one, and where the word stands (U, 2).

    A token belongs to the word it begins in; one that reaches over several words takes them in.
    """
    if not len(tokens) or not len(words):
        return np.zeros(0, dtype=np.int64), words[:0]
    word_of = np.maximum(0, np.searchsorted(words[:, 0], tokens[:, 0], side="right") - 1)
    first = np.flatnonzero(np.r_[True, np.diff(word_of) != 0])
    own = words[word_of[first]]
    ends = np.maximum(own[:, 1], np.maximum.reduceat(tokens[:, 1], first))
    return first, np.column_stack([np.maximum(own[:, 0], np.r_[0, ends[:-1]]), ends])


def tags_of(spans: Sequence[Span], words: Places, number_of: Mapping[str, int]) -> Tags:
    """The tag of each word (K,): a word that a span reaches into is a part of it.

    Spans with a label that has no number are left out.

    >>> span = {"start": 0, "end": 8, "label": "PLACE"}
    >>> tags_of([span], words_of("New York is", "spaced"), {"PLACE": 0}).tolist()
    [1, 2, 0]
    """
    tags = np.zeros(len(words), dtype=np.int64)
    for span in spans:
        if (number := number_of.get(span["label"])) is not None:
            first = int(np.searchsorted(words[:, 1], span["start"], side="right"))
            after = int(np.searchsorted(words[:, 0], span["end"], side="left"))
            tags[first:after] = 2 * number + 2
            tags[first : min(first + 1, after)] = 2 * number + 1
    return tags


def ranges_of(tags: Tags) -> list[tuple[int, int, int]]:
    """The first word, the word after the last, and the label's number of each span.

    >>> ranges_of(np.array([1, 2, 0, 3, 3]))
    [(0, 2, 0), (3, 4, 1), (4, 5, 1)]
    """
    begins = np.flatnonzero(tags % 2)
    goes_on = np.r_[(tags > 0) & (tags % 2 == 0), False]
    stops = np.flatnonzero(~goes_on)
    ends = stops[np.searchsorted(stops, begins, side="right")] if len(begins) else begins
    labels = (tags[begins] - 1) // 2
    return list(zip(begins.tolist(), ends.tolist(), labels.tolist(), strict=True))


def best_tags(log_shares: NDArray[np.float64], ends: NDArray[np.int64]) -> Tags:
    """The likeliest tags (N,) of the words of B texts, of log probabilities (N, C).

    I-LABEL stands only after B-LABEL or I-LABEL. Where the likeliest tag of each word is so
    already, that is the answer, and it mostly is; elsewhere Viterbi's algorithm finds it.
    Viterbi, A. (1967), Error bounds for convolutional codes.
    """
    tags: Tags = log_shares.argmax(1)
    before = np.r_[0, tags[:-1]][: len(tags)]
    before[ends[:-1][ends[:-1] < len(tags)]] = 0
    inside = (tags > 0) & (tags % 2 == 0)
    wrong = inside & (before != tags) & (before != tags - 1)
    for text in np.unique(np.searchsorted(ends, np.flatnonzero(wrong), side="right")):
        start, end = int(ends[text - 1]) if text else 0, int(ends[text])
        tags[start:end] = _viterbi(log_shares[start:end])
    return tags


def _viterbi(log_shares: NDArray[np.float64]) -> Tags:
    """The likeliest allowed tags of one text's words (K,).

    O and B-LABEL may follow any tag, so they follow the best so far.
    """
    width = log_shares.shape[1]
    inside = np.arange(2, width, 2)
    scores = log_shares[0].copy()
    scores[inside] = -np.inf
    steps = []
    for own in log_shares[1:]:
        came = np.full(width, scores.argmax())
        came[inside] = np.where(scores[inside - 1] >= scores[inside], inside - 1, inside)
        steps.append(came)
        scores = scores[came] + own
    path = [int(scores.argmax())]
    for came in reversed(steps):
        path.append(int(came[path[-1]]))
    return np.array(path[::-1], dtype=np.int64)
