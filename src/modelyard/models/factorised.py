"""Factorised: which candidates go with which features, by the factors that both share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTORS = 64
NOTHING = 1e-6
"""Share of the largest singular value below which a factor says nothing."""


class Factorised:
    """Scores of N candidates for a row's plain features, by the singular vectors of both together.

    What a row says and what is right for it stand side by side as one row of a matrix; a new row's
    own half, by those vectors, tells the other. Cremonesi, P. et al. (2010), Performance of
    recommender algorithms on top-N recommendation tasks, section 4.

    >>> features = np.eye(2).repeat(5, 0)
    >>> found = Factorised(features, [[0]] * 5 + [[1]] * 5, 3).scores(np.array([[0.0, 1.0]]))
    >>> int(found.argmax())
    1
    """

    def __init__(self, features: Any, right: Sequence[Sequence[int]], candidates: int):
        from scipy.sparse import csr_array, hstack
        from sklearn.decomposition import TruncatedSVD

        ends = np.cumsum([0, *map(len, right)])
        numbers = np.array([each for own in right for each in own], dtype=np.int64)
        answers = csr_array((np.ones(len(numbers)), numbers, ends), (len(right), candidates))
        both = csr_array(hstack([csr_array(features), answers]))
        factors = min(FACTORS, *(size - 1 for size in both.shape))
        svd = TruncatedSVD(factors, random_state=0).fit(both)
        says = svd.singular_values_ > NOTHING * svd.singular_values_[0]
        found = svd.components_[says].T  # (F + N, K)
        self.of_features, self.of_candidates = found[:-candidates], found[-candidates:]

    def scores(self, features: Any) -> NDArray[np.float32]:
        """The score of each candidate for rows' features: (B, N)."""
        found: NDArray[np.float32] = np.asarray(
            (features @ self.of_features) @ self.of_candidates.T, dtype=np.float32
        )
        return found
