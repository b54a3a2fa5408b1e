"""Intervals: how far a measured share can be trusted."""

import math

Z_95 = 1.959963984540054
INTERVAL_SHARE = 0.9
"""The share of truths that the interval around a number is to hold."""


def wilson(successes: int, rows: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 % unless told otherwise.

    Wilson, E. B. (1927), Probable inference, the law of succession, and statistical inference.

    >>> [round(end, 3) for end in wilson(835, 1000)]
    [0.811, 0.857]
    """
    if rows == 0:
        return 0.0, 1.0
    share = successes / rows
    centre = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # whatever was rounded
