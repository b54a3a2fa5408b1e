"""Plain: what a baseline is told of all input columns together."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard import inputs
from modelyard.core.artefacts import ColumnState

Values = Mapping[str, Sequence[Any]]


class PlainTable:
    """Plain features (B, F) of several columns side by side; `name` says what they are."""

    def __init__(self, sources: Sequence[ColumnState]):
        self.sources = sources
        self.name = ""
        self.learned: dict[str, inputs.PlainFeatures] = {}

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
        return _side_by_side(found)

    def transform(self, values: Values) -> Any:
        """The features of other rows."""
        return _side_by_side(
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


def _side_by_side(features: Sequence[Any]) -> Any:
    if len(features) == 1:
        return features[0]
    from scipy.sparse import csr_array, hstack

    return csr_array(hstack([csr_array(each) for each in features]))
