"""The ranking: how far down the right candidates stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.checks import Answers, Check, Finding
from modelyard.core.intervals import wilson

DEPTHS = (1, 2, 3, 5, 10)


def ranking(truth: Sequence[Mapping[str, Any]], answers: Answers) -> Finding:
    """The share of rows with a right candidate among the first k, with its Wilson interval.

    And how many candidates each row was ranked among, and has right, on average.
    """
    ranks = [first_right(true, answer) for true, answer in zip(truth, answers, strict=True)]
    rows = len(ranks)
    counts = {k: sum(rank is not None and rank <= k for rank in ranks) for k in DEPTHS}
    pools = [len({*own["pool"]} - {*(own["seen"] or ())}) for own in truth if own["pool"]]
    return Finding(
        (),
        {
            "rows": rows,
            "right": sum(len(true["right"]) for true in truth) / rows,
            "pool": sum(pools) / len(pools) if pools else None,
            "recall": [
                {
                    "depth": k,
                    "value": count / rows,
                    **dict(zip(("low", "high"), wilson(count, rows), strict=True)),
                    "rows": rows,
                }
                for k, count in counts.items()
            ],
        },
    )


def first_right(truth: Mapping[str, Any], answer: Mapping[str, Any]) -> int | None:
    """The rank of the first right candidate, counted from 1, or None.

    >>> first_right({"right": ["b"]}, {"candidates": [{"id": "a"}, {"id": "b"}]})
    2
    """
    ids = [each["id"] for each in answer["candidates"]]
    return next((n for n, each in enumerate(ids, start=1) if each in truth["right"]), None)


CHECK = Check("ranking", needs=("candidates",), measures=(), run=ranking)
