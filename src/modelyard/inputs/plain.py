"""Plain: what a baseline is told of all input columns together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard import inputs
from modelyard.core.artefacts import ColumnState

MOST_DENSE = 500
"""Features of a table that are kept dense, which trees want."""
Values = Mapping[str, Sequence[Any]]


class PlainTable:
    """Plain features (B, F) of several columns side by side; `name` says what they are.

    They are a NumPy array where all columns are of a table, unless very many, and else sparse.
    """

    def __init__(self, sources: Sequence[ColumnState]):
        self.sources = sources
        self.name = ""
        self.learned: dict[str, inputs.PlainFeatures] = {}
        self.is_table = all(inputs.find(source.kind).together for source in sources)

    def fit_transform(self, values: Values) -> Any:
        """Learn from the training values of each column and give their features."""
        found, names = [], []
        for source in self.sources:
            own = [self._filled(source, value) for value in values[source.column]]
            name, features = inputs.find(source.kind).plain_features(own)
            self.learned[source.column] = features
            names.append(name)
            found.append(features.fit_transform(own))
        self.name = ", ".join(dict.fromkeys(names))
        return self._side_by_side(found)

    def transform(self, values: Values) -> Any:
        """The features of other rows."""
        return self._side_by_side(
            [
                self.learned[source.column].transform(
                    [self._filled(source, value) for value in values[source.column]]
                )
                for source in self.sources
            ]
        )

    def _filled(self, source: ColumnState, value: Any) -> Any:
        kind = inputs.find(source.kind)
        return kind.blank if value is None and not kind.together else value

    def _side_by_side(self, features: Sequence[Any]) -> Any:
        from scipy.sparse import csr_array, hstack, issparse

        if self.is_table and sum(each.shape[1] for each in features) <= MOST_DENSE:
            return np.hstack([each.toarray() if issparse(each) else each for each in features])
        if len(features) == 1:
            return features[0]
        return csr_array(hstack([csr_array(each) for each in features]))
