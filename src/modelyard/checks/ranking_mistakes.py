"""Mistakes of a ranking: the rows answered wrongly with the highest scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.checks import Answers, Check, Finding
from modelyard.checks.ranking import first_right

MOST = 20
MOST_CHARACTERS = 160


def ranking_mistakes(truth: Sequence[Mapping[str, Any]], answers: Answers) -> Finding:
    """The rows whose first candidate is not right, by its score, and where a right one stands."""
    wrong = []
    for row, (true, answer) in enumerate(zip(truth, answers, strict=True)):
        rank = first_right(true, answer)
        if rank != 1 and answer["candidates"]:
            first = answer["candidates"][0]
            said = f"one that is at rank {rank}" if rank else "none of the first"
            wrong.append(
                {"row": row, "truth": said, "label": _short(first["text"]), "score": first["score"]}
            )
    listed = sorted(wrong, key=lambda each: (-each["score"], each["row"]))[:MOST]
    return Finding((), {"wrong": len(wrong), "rows": len(truth), "listed": listed})


def _short(text: str) -> str:
    """The beginning of a text.

    >>> _short("a" * 200)[-2:], _short("short")
    ('a…', 'short')
    """
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1].rstrip() + "…"


CHECK = Check("mistakes", needs=("candidates",), measures=(), run=ranking_mistakes)
