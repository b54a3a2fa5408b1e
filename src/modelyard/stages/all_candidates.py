"""All candidates beside each row: where they are few and short, each step reads every one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.events import Decided
from modelyard.core.measure import Measure
from modelyard.runtime.encoded import Encoded, of_pieces, of_rows, side_by_side
from modelyard.runtime.index import HISTORY, MOST, Index, unit
from modelyard.stages.candidates import Pairing, Truths, pools_of, together_in
from modelyard.targets import HAD, RIGHT, WRONG, Picks, State

MOST_TOKENS = 20_000
"""Of all candidates: of MiniLM's six layers 3 GB are kept for their gradients."""

if TYPE_CHECKING:
    from modelyard.models.batches import Indices
    from modelyard.models.evaluation import ByPiece, Shared, Truth
    from modelyard.models.towers import History


@dataclass(frozen=True)
class AllCandidates:
    """The candidates that each step reads beside its rows, and what rows have seen of them."""

    pairing: Pairing
    target: Picks
    state: State
    history: "History | None"
    """What is learned of that, where rows have seen any."""
    mean_right: float
    """How many right candidates a training row has, on average."""

    @classmethod
    def of(
        cls,
        pairing: Pairing,
        target: Picks,
        state: State,
        rows: Encoded,
        truths: Truths,
        batch_rows: int,
    ) -> "AllCandidates | None":
        """Where reading all of them costs a step no more than its rows and pairs would.

        And where they are not so many that what each layer keeps of them fills the memory.
        """
        candidates = pairing.candidates.encoded
        in_pairs = (1 + together_in(truths)) * float(candidates.lengths.sum() / candidates.rows)
        of_step = batch_rows * (float(rows.lengths.sum()) / max(1, rows.rows) + in_pairs)
        if not rows.rows or candidates.lengths.sum() > min(of_step, MOST_TOKENS):
            return None
        history = _history(int(state["width"])) if any(truth["seen"] for truth in truths) else None
        mean_right = float(np.mean([len(truth["right"]) for truth in truths]))
        found = cls(pairing, target, state, history, mean_right)
        found.tell()
        return found

    def tell(self) -> None:
        """What was decided, and why."""
        count, events = len(self.pairing.candidates.ids), self.pairing.events
        why = "reading them all costs a step less than a right and a wrong one for each row would"
        events(Decided("candidates", f"all {count:,} beside each row", why))
        if self.history is not None:
            why = "what rows have seen says what they are like"
            events(Decided("history", "the candidates that a row has seen move its vector", why))

    def side(self, rows: Encoded) -> Encoded:
        """Rows alone, as both the rows' and the candidates' network read them."""
        return side_by_side({"query": rows})

    def truth(self, truths: Truths) -> "Truth":
        """What gives what each of N candidates is to some rows (B, N)."""
        numbers = list(self.pairing.numbers(truths))

        def standing(rows: "Indices") -> NDArray[np.int64]:
            found = np.full((len(rows), len(self.pairing.candidates.ids)), WRONG)
            for place, row in enumerate(rows):
                right, fair = numbers[row]
                found[place, fair] = HAD
                found[place, right] = RIGHT
            return found

        return standing

    def shared(self, validation: Encoded, truths: Truths) -> "Shared":
        """What the training loop sets rows beside."""
        from modelyard.models.evaluation import Shared

        def score(network: Any, outputs: "ByPiece", vectors: Any) -> Sequence[Measure]:
            rows: Any = of_rows(of_pieces(outputs, int(self.state["width"])), validation)
            ranked = self._index(network, vectors.numpy()).search(rows, MOST, pools_of(truths))
            return self.target.score(truths, self.target.decode(ranked, self.state))

        return Shared(self.side(self.pairing.candidates.encoded), self._losses, score)

    def _losses(self, network: Any, outputs: Any, standing: Any, vectors: Any) -> Any:
        from torch.nn.functional import normalize

        vectors = normalize(vectors, dim=1)
        if network.history is not None:
            outputs = outputs + network.history(standing == HAD, vectors)
        found = self.target.losses_of_all(normalize(outputs, dim=1), vectors, standing)
        return found / self.mean_right

    def _index(self, network: Any, vectors: NDArray[np.float32]) -> Index:
        own = self.pairing.candidates
        return Index(own.ids, own.texts, unit(vectors), _weights(network.history))

    def save(self, out: Path) -> None:
        """Write history.npy, where there is a history."""
        weights = _weights(self.history)
        if weights is not None:
            np.save(out / HISTORY, weights, allow_pickle=False)


def _history(width: int) -> "History":
    from modelyard.models.towers import History

    return History(width)


def _weights(history: "History | None") -> NDArray[np.float32] | None:
    if history is None:
        return None
    found: NDArray[np.float32] = history.weights.detach().float().numpy()
    return found
