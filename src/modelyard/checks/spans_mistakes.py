"""The most confident mistakes in spans: spans found where none is, or another one."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.checks import Answers, Check, Finding
from modelyard.checks.mistakes import MOST

Span = Mapping[str, Any]


def spans_mistakes(truth: Sequence[Mapping[str, Any]], answers: Answers) -> Finding:
    """The wrong spans with the highest scores; `row` is the position among the rows given."""
    listed: list[dict[str, Any]] = []
    wrong = 0
    for row, (own, answer) in enumerate(zip(truth, answers, strict=True)):
        true, found = ({_key(span) for span in each["spans"]} for each in (own, answer))
        wrong += true != found
        listed += [
            {
                "row": row,
                "truth": _true(span, own),
                "label": _said(span, own),
                "score": span["score"],
            }
            for span in answer["spans"]
            if _key(span) not in true
        ]
    listed.sort(key=lambda each: (-each["score"], each["row"]))
    return Finding((), {"wrong": wrong, "rows": len(truth), "listed": listed[:MOST]})


def _key(span: Span) -> tuple[int, int, str]:
    return span["start"], span["end"], span["label"]


def _said(span: Span, truth: Mapping[str, Any]) -> str:
    return f"{span['label']}: {truth['text'][span['start'] : span['end']]}"


def _true(span: Span, truth: Mapping[str, Any]) -> str:
    """What is so where a wrong span was found."""
    there = [
        _said(own, truth)
        for own in truth["spans"]
        if own["start"] < span["end"] and span["start"] < own["end"]
    ]
    return ", ".join(there) or "nothing"


CHECK = Check("mistakes", needs=("spans",), measures=(), run=spans_mistakes)
