"""Calibration: whether a score of 0.9 is right nine times out of ten."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.checks import Answers, Check, Finding
from modelyard.core.intervals import wilson
from modelyard.core.measure import Measure

BINS = 15
HISTOGRAM_BINS = 20
RESAMPLES = 1000


def calibration(truth: Sequence[str], answers: Answers) -> Finding:
    """Expected calibration error in 15 bins of equal width, and what a reliability plot shows.

    Guo, C. et al. (2017), On calibration of modern neural networks, equation 3.
    """
    score = np.clip([float(answer["score"]) for answer in answers], 0.0, 1.0)
    right = np.array([t == str(a["label"]) for t, a in zip(truth, answers, strict=True)])
    bin_of = _bin_of(score, BINS)
    gap = right - score
    value = float(np.abs(_gaps(gap, bin_of)).sum())
    low, high = _interval(gap, bin_of)
    return Finding(
        (Measure("ece", value, low, high, len(truth), higher_is_better=False),),
        {
            "rows": len(truth),
            "ece": {"value": value, "low": low, "high": high, "bins": BINS},
            "mean_score": float(score.mean()),
            "accuracy": float(right.mean()),
            "bins": [_bin(number, score, right, bin_of) for number in np.unique(bin_of).tolist()],
            "histogram": _histogram(score, right),
        },
    )


def _bin_of(score: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The bin of each score; bin i holds (i / bins, (i + 1) / bins], and bin 0 holds 0 too."""
    return np.clip(np.ceil(score * bins).astype(np.int64) - 1, 0, bins - 1)


def _gaps(gap: NDArray[np.float64], bin_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each bin (15,) adds to the error, with its sign."""
    return np.bincount(bin_of, gap, BINS) / len(gap)


def _interval(gap: NDArray[np.float64], bin_of: NDArray[np.int64]) -> tuple[float, float]:
    """A bootstrap interval that holds although the error is biased upwards.

    Below, the triangle inequality: the true error is no further from the value than all bins
    together are from theirs. Above, the plain quantile, to which the bias only adds. In
    simulations (200 to 4,000 rows, true error 0 to 0.12) it held the truth in 94 to 100 %.
    """
    rng = np.random.default_rng(0)
    found = _gaps(gap, bin_of)
    draws = (rng.integers(len(gap), size=len(gap)) for _ in range(RESAMPLES))
    resampled = np.array([_gaps(gap[rows], bin_of[rows]) for rows in draws])
    value = float(np.abs(found).sum())
    reach = float(np.quantile(np.abs(resampled - found).sum(axis=1), 0.95))
    high = float(np.quantile(np.abs(resampled).sum(axis=1), 0.975))
    return max(0.0, value - reach), min(1.0, max(value, high))


def _bin(
    number: int, score: NDArray[np.float64], right: NDArray[np.bool_], bin_of: NDArray[np.int64]
) -> dict[str, Any]:
    here = bin_of == number
    rows, hits = int(here.sum()), int(right[here].sum())
    low, high = wilson(hits, rows)
    return {
        "from": number / BINS,
        "to": (number + 1) / BINS,
        "rows": rows,
        "score": float(score[here].mean()),
        "accuracy": hits / rows,
        "low": low,
        "high": high,
    }


def _histogram(score: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, list[int]]:
    """How many right and wrong answers have which score, in 20 bins of equal width."""
    bin_of = _bin_of(score, HISTOGRAM_BINS)
    return {
        name: np.bincount(bin_of[chosen], minlength=HISTOGRAM_BINS).tolist()
        for name, chosen in (("right", right), ("wrong", ~right))
    }


CHECK = Check("calibration", needs=("label", "score"), measures=("ece",), run=calibration)
