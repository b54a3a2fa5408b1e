"""BM25: how well a text's words answer a query's, by how rare they are."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORDS = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
"""Words, and each Chinese character by itself."""
K1, B = 1.2, 0.75


class BM25:
    """Scores of N texts for a query.

    Robertson, S. and Zaragoza, H. (2009), The probabilistic relevance framework: BM25 and beyond.

    >>> found = BM25(["the red car", "a blue boat", "the sky"]).scores(["a red car"])
    >>> int(found.argmax())
    0
    """

    def __init__(self, texts: Sequence[str]):
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import CountVectorizer

        self.words = CountVectorizer(tokenizer=re.compile(WORDS).findall, token_pattern=None)
        counts = csr_array(self.words.fit_transform(texts), dtype=np.float64)  # (N, V)
        lengths = counts.sum(1)
        occurs = np.bincount(counts.indices, minlength=counts.shape[1])
        rare = np.log1p((len(texts) - occurs + 0.5) / (occurs + 0.5))
        rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        held_down = K1 * (1 - B + B * lengths[rows] / lengths.mean())
        counts.data *= rare[counts.indices] * (K1 + 1) / (counts.data + held_down)
        self.weights = counts

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """The score of each text for each query (B, N)."""
        asked = self.words.transform(queries)  # (B, V)
        found: NDArray[np.float32] = (asked @ self.weights.T).toarray().astype(np.float32)
        return found
