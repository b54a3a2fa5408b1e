"""Match: the candidates that fit a row best, such as the answers to a question.

A row and a candidate become vectors of one space, in which what belongs together is near.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from modelyard.core.errors import TooFewClasses
from modelyard.core.intervals import wilson
from modelyard.runtime.encoded import Encoded
from modelyard.runtime.index import MOST, Ranked, named
from modelyard.targets import RIGHT, WRONG, Baseline, Measure, State

RESAMPLES = 1000
TEMPERATURE = 0.05
NONE = -1
NEVER = -1e4
"""The score of a candidate that is not counted; of finite ones alone there are gradients."""
Truth = Mapping[str, Any]
"""The ids of a row's `right` candidates, of its `pool` or None, and of those `seen` or None."""


class CandidateAnswer(BaseModel):
    """One candidate."""

    id: str = Field(description="its id")
    text: str = Field(description="what it says")
    score: float = Field(ge=-1, le=1, description="the cosine of its vector and the row's")


class MatchAnswer(BaseModel):
    """The answer for one row."""

    candidates: list[CandidateAnswer] = Field(description="the nearest, the best first")


class Match:
    """The match target."""

    kind = "match"
    wire = MatchAnswer
    main = "recall_at_1"
    steers = "ndcg_at_10"  # of a row it has 10 places to look at, and not one
    measures = ("recall_at_1", "recall_at_10", "mrr_at_10", "ndcg_at_10")
    chooses = ""
    reads = "vectors"
    outputs = "vectors"
    contradicts = False  # a row may have several right candidates

    def read(self, value: Any, values: Mapping[str, Any]) -> list[str]:
        """A candidate, a list of them, or such a list as JSON; each is an id or a text.

        >>> TARGET.read('["a2", "a7"]', {}), TARGET.read("Yes, it does.", {})
        (['a2', 'a7'], ['Yes, it does.'])
        """
        return named(value)

    def names(self, truth: Truth) -> list[str]:
        """Candidates are no classes."""
        return []

    def amounts(self, truths: Sequence[Any]) -> None:
        """Candidates are no numbers."""
        return

    def strata(self, truths: Sequence[Truth]) -> list[str]:
        """All rows are one stratum."""
        return ["" for _ in truths]

    def check(self, truths: Sequence[Truth]) -> None:
        """Refuse rows that all have the same candidate: TooFewClasses."""
        if len({each for truth in truths for each in truth["right"]}) < 2:
            raise TooFewClasses(
                "A match target needs two candidates or more, and all rows have the same one; "
                "name another target column, or add rows with other candidates."
            )

    def learn(self, truths: Sequence[Truth]) -> State:
        """Nothing of the truths; the width of the vectors is the network's own."""
        return {"width": 0}

    def width(self, state: State) -> int:
        """The width of a row's vector."""
        return int(state["width"])

    def config(self, state: State) -> dict[str, Any]:
        """A network that gives vectors has no labels."""
        return {}

    def truth(self, truths: Sequence[Any], state: State, encoded: Encoded) -> NDArray[np.int64]:
        """Numbers of candidates (B, 1 + K + R): a wrong one or NONE, a row's own K, all fair ones.

        Each truth is (wrong, own ones, those that are right or seen).
        """
        most = max((len(own) + len(fair) for _, own, fair in truths), default=0)
        found = np.full((len(truths), 1 + most), NONE, dtype=np.int64)
        for row, (wrong, own, fair) in enumerate(truths):
            found[row, : 1 + len(own) + len(fair)] = [wrong, *own, *fair]
        return found

    def losses(self, outputs: Any, truth: Any, state: State, options: Mapping[str, Any]) -> Any:
        """Cross-entropy of each row's own candidates (B,), each among all that are wrong for it.

        Those of the other rows, and each row's wrong one where it has such, are its negatives,
        unless they are right for it too, or it has seen them. From vectors (B, S W) of S sides:
        the row, its wrong one, its own K.
        What is often right is often a negative too: `log_shares` (N,) of `options` puts that right,
        so that a score says how likely a candidate is, and not how much likelier than elsewhere.

        Yi, X. et al. (2019), Sampling-bias-corrected neural modeling, section 3;
        Henderson, M. et al. (2017), Efficient natural language response suggestion for smart
        reply, section 4.4; van den Oord, A. et al. (2018), equation 4.
        """
        import torch
        from torch.nn.functional import normalize, softplus

        rows = len(outputs)
        sides = normalize(outputs.view(rows, -1, state["width"]), dim=2)
        candidates = sides[:, 1:].transpose(0, 1).flatten(0, 1)  # (M, W)
        has_wrong = bool((truth[:, 0] != NONE).any())
        first = 0 if has_wrong else 1
        numbers = truth[:, first : first + sides.shape[1] - 1].T.flatten()  # (M,)
        scores = sides[:, 0] @ candidates.T / TEMPERATURE
        if "log_shares" in options:
            scores = scores - options["log_shares"][numbers]
        wrong = scores.masked_fill(_is_fair(truth[:, 1:], numbers), NEVER).logsumexp(
            1, keepdim=True
        )
        places = torch.arange(len(numbers)).view(-1, rows).T[:, int(has_wrong) :]  # (B, K)
        return softplus(wrong - scores.gather(1, places)).mean(1)

    def losses_of_all(self, rows: Any, candidates: Any, standing: Any) -> Any:
        """Cross-entropy of a row's right candidates (B,), each among all that are wrong for it.

        It is their sum: a candidate that is right weighs the same in a row that has many such.
        From vectors of length 1 of the rows (B, W) and of all candidates (N, W), and what each of
        these is to a row (B, N): WRONG, RIGHT or HAD.
        """
        from torch.nn.functional import softplus

        scores = rows @ candidates.T / TEMPERATURE
        wrong = scores.masked_fill(standing != WRONG, NEVER).logsumexp(1, keepdim=True)
        return (softplus(wrong - scores) * (standing == RIGHT)).sum(1)

    def decode(self, outputs: Ranked, state: State) -> list[dict[str, Any]]:
        """What was ranked for B rows as B answers."""
        return [
            {
                "candidates": [
                    {"id": each, "text": text, "score": min(1.0, max(-1.0, score))}
                    for each, text, score in zip(ids, texts, scores.tolist(), strict=True)
                ]
            }
            for ids, texts, scores in zip(outputs.ids, outputs.texts, outputs.scores, strict=True)
        ]

    def score(self, truth: Sequence[Truth], answers: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """Recall (Wilson interval), reciprocal rank and NDCG (bootstrap over rows) of the first 10.

        Recall at k: whether a right candidate is among the first k. Each right one gains 1.
        Järvelin, K. and Kekäläinen, J. (2002), Cumulated gain-based evaluation of IR techniques.
        """
        hits, right = hits_of(truth, answers)
        rows = len(hits)
        found = [_share(f"recall_at_{k}", np.any(hits[:, :k], axis=1)) for k in (1, MOST)]
        drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES)
        for name, values in (
            ("mrr_at_10", reciprocal_rank(hits)),
            ("ndcg_at_10", ndcg(hits, right)),
        ):
            low, high = np.quantile(drawn @ values / rows, [0.025, 0.975])
            if low == high:  # nothing to resample where all rows are alike
                low, high = found[0].low, found[1].high
            value = float(values.mean())
            found.append(
                Measure(name, value, min(value, float(low)), max(value, float(high)), rows)
            )
        return found

    def baselines(
        self,
        name: str,
        features: Any,
        truths: Sequence[Truth],
        test_features: Any,
        test_values: Mapping[str, Sequence[Any]],
    ) -> list[Baseline]:
        """None by plain features: what ranks candidates needs the candidates."""
        return []


def _is_fair(fair: Any, numbers: Any) -> Any:
    """Whether candidates with these numbers (M,) are among a row's fair ones (B, R): (B, M)."""
    import torch

    most = int(max(fair.max(), numbers.max())) + 1
    told = torch.zeros(len(fair), most + 1, dtype=torch.bool)  # the last place is for NONE
    told.scatter_(1, fair.where(fair != NONE, most), True)
    return told[:, numbers]


def hits_of(
    truth: Sequence[Truth], answers: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each of the first 10 candidates is right (B, 10), and how many are right (B,)."""
    hits = np.zeros((len(truth), MOST), dtype=bool)
    for row, (true, answer) in enumerate(zip(truth, answers, strict=True)):
        right = set(true["right"])
        for place, each in enumerate(answer["candidates"][:MOST]):
            hits[row, place] = each["id"] in right
    return hits, np.array([len(set(true["right"])) for true in truth])


def reciprocal_rank(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One over the rank of the first right candidate (B,), 0 where none is among them.

    >>> reciprocal_rank(np.array([[False, True], [False, False]])).tolist()
    [0.5, 0.0]
    """
    found: NDArray[np.float64] = np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)
    return found


def ndcg(hits: NDArray[np.bool_], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Discounted gain of each row (B,) as a share of the best there could be.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 1])).round(3).tolist()
    [1.0, 0.631]
    """
    gains = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    ideal = gains.cumsum()[np.minimum(right, hits.shape[1]) - 1]
    found: NDArray[np.float64] = hits @ gains / ideal
    return found


def _share(name: str, is_so: Any) -> Measure:
    count, rows = int(is_so.sum()), len(is_so)
    return Measure(name, count / max(1, rows), *wilson(count, rows), rows)


TARGET = Match()
