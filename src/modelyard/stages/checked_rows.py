"""Checked rows: the validation rows on which each rung is held against the network itself."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from modelyard import checks, inputs, targets
from modelyard.checks.difference import fitting as fitting_difference
from modelyard.core.artefacts import Dataset, Model
from modelyard.core.measure import Measure
from modelyard.runtime.columns import Columns
from modelyard.runtime.encoded import Encoded, PieceOutputs, of_rows
from modelyard.runtime.graph import Graph
from modelyard.runtime.index import MOST, Floats, Index, Pool, history_in
from modelyard.runtime.runtime import Runtime, columns_of
from modelyard.stages.candidates import Candidates, pools_of
from modelyard.stages.rungs import Answer, Rung, agreement, largest_difference, loss_of

MOST_CHECKED_ROWS = 2000
ASKED_ROWS = 128
"""Rows that speed is measured on."""
Run = Callable[[Encoded], PieceOutputs]
"""A network or a graph."""
State = dict[str, Any]


@dataclass(frozen=True)
class CheckedRows:
    """At most 2,000 validation rows, evenly spaced, and what answers of them are made of."""

    model: Model
    columns: Columns
    asked: list[dict[str, Any]]
    """Some of them as they came: what a runtime is asked."""
    encoded: Encoded
    truth: Sequence[Any]
    candidates: Candidates | None = None
    history: Floats | None = None
    pools: list[Pool] | None = None

    @classmethod
    def of(cls, dataset: Dataset, model: Model) -> "CheckedRows":
        """Read and encode them."""
        answer, columns = model.spec.target, columns_of(model.spec, model.folder, inputs.find)
        table = pq.read_table(dataset.part("validation"), columns=[*columns.names, answer.column])
        count = min(len(table), MOST_CHECKED_ROWS)
        table = table.take(np.linspace(0, len(table) - 1, count).astype(np.int64))
        truth = table[answer.column].to_pylist()
        found = cls(
            model=model,
            columns=columns,
            asked=table.slice(0, ASKED_ROWS).select(columns.names).to_pylist(),
            encoded=columns.encode({name: table[name].to_pylist() for name in columns.names}),
            truth=truth,
        )
        if targets.find(answer.kind).reads != "vectors":
            return found
        history = history_in(model.folder)
        own = [each for row in truth for each in row["right"][:1]] if history is None else None
        candidates = Candidates.of(dataset, model.spec, columns, own)
        pools = pools_of(truth) if own is None else None
        return replace(found, candidates=candidates, history=history, pools=pools)

    def answers(self, run: Run, state: State) -> Sequence[Answer]:
        """What rows are answered with; picked from candidates where there are such."""
        outputs: Any = of_rows(run(self.encoded), self.encoded)
        if index := self.index(run):
            outputs = index.search(outputs, MOST, self.pools)
        return targets.find(self.model.spec.target.kind).decode(outputs, state)

    def index(self, run: Run) -> Index | None:
        """The vectors of what is picked from, if anything is."""
        return self.candidates.index(run, self.history) if self.candidates else None

    def main(self, answers: Sequence[Answer]) -> Measure:
        """The measure that heads the report."""
        target = targets.find(self.model.spec.target.kind)
        measures = target.score(self.truth, answers)
        return next(each for each in measures if each.name == target.main)

    def checked(
        self,
        rung: Rung,
        original: Sequence[Answer],
        found: Sequence[Answer],
        wanted: Collection[str],
    ) -> Rung:
        """The rung with what its answers are worth, beside the network's own on the same rows.

        `wanted` are the measures that somebody asks for beside the main one.
        """
        compare = fitting_difference(targets.find(self.model.spec.target.kind).wire.model_fields)
        measure = self.main(found)
        return replace(
            rung,
            measure=measure,
            loss=loss_of(self.main(original), measure),
            agreement=agreement(original, found),
            largest_difference=largest_difference(original, found),
            difference=compare(self.truth, found, original) if compare else None,
            measures=tuple(self._measures(found, wanted)),
        )

    def _measures(self, answers: Sequence[Answer], wanted: Collection[str]) -> list[Measure]:
        target = targets.find(self.model.spec.target.kind)
        found = list(target.score(self.truth, answers))
        for check in checks.fitting(target.wire.model_fields):
            if set(wanted) & set(check.measures):
                found += check.run(self.truth, answers).measures
        return [each for each in found if each.name in wanted]

    def runtime(self, graph: Path, state: State, index: Index | None) -> Runtime:
        """What serves a graph, as a release does."""
        spec = self.model.spec
        target = targets.find(spec.target.kind)
        settled = spec.target.model_copy(update={"state": state})
        return Runtime(
            spec=spec.model_copy(update={"target": settled}),
            graph=Graph(graph),
            columns=self.columns,
            decode_outputs=target.decode,
            answer_fields=tuple(target.wire.model_fields),
            index=index,
        )
