"""Lesson: what a training learns from, whatever it is that learns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.artefacts import ModelSpec
from modelyard.models.backbones import Backbone
from modelyard.runtime.columns import Group
from modelyard.runtime.encoded import Encoded
from modelyard.stages.all_candidates import AllCandidates
from modelyard.stages.candidates import Pairing

NOWHERE = Path("/nonexistent")


@dataclass(frozen=True)
class Part:
    """The rows of the training or the validation part, encoded, and their truths.

    `learned` are the truths as the target takes them, where they are not those.
    """

    digests: NDArray[np.uint64]
    encoded: Encoded
    truths: list[Any]
    learned: list[Any] | None = None


@dataclass(frozen=True)
class Lesson:
    """What is learned from: the model to be, its backbones by kind of input, and the rows."""

    spec: ModelSpec
    backbones: Mapping[str, Backbone]
    training: Part
    validation: Part
    pairing: Pairing | None = None
    """What the rows are paired with, where the target picks from candidates."""
    beside: AllCandidates | None = None
    """What rows are set beside instead of pairs, where that costs less."""

    def folder_of(self, group: Group) -> Path:
        """The backbone of a group; nowhere for one that is trained from nothing."""
        chosen = self.backbones.get(group.kind)
        return chosen.folder if chosen else NOWHERE
