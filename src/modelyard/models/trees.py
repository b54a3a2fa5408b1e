"""Trees: gradient-boosted trees in place of a network over a table.

They learn from the losses of rows, whatever these are: each tree follows the losses' slope and
curvature (Friedman, J. 2001, Greedy function approximation; Chen, T. and Guestrin, C. 2016,
XGBoost, section 2.2). scikit-learn grows them, on features in bins.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelyard.models.forest import Features, Forest

RATE, RATE_OF_MANY = 0.03, 0.08
"""How far each round goes of what it would, where rows are few and where they are many."""
FORESTS = 4
"""Forests averaged where rows are few: they differ by the columns that splits may choose from."""
MOST_ROUNDS = 300
PATIENCE = 40
"""Rounds without a lower loss on rows held out, after which no more are tried."""
FOLDS = 4
MANY_ROWS = 6000
"""Rows from which a part of them is held out once; of fewer, each is held out in its turn."""
HELD_SHARE = 0.2
FEWEST_LEAVES, MOST_LEAVES = 12, 31
LEAF_ROWS = 10
COLUMNS_PER_SPLIT = 0.3
PENALTY = 1.0
BINS = 256
INDICATED = 32
"""Codes of a column that also have a feature each; those beyond are told by their order alone."""
FLAT = 1e-6
START_STEPS = 30
FARTHEST_STEP = 2.0
Arrays = Mapping[str, NDArray[np.generic]]
Indices = NDArray[np.int64]
Losses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """B rows to learn from: arrays (B, ...) by name, truths (B, ...), C outputs, their losses."""

    arrays: Arrays
    truth: Tensor
    width: int
    losses: Losses

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return len(self.truth)

    @property
    def is_few(self) -> bool:
        """Whether there is time for more care."""
        return self.rows < MANY_ROWS

    def take(self, rows: Indices) -> "Lesson":
        """Some of the rows."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, truth=self.truth[torch.from_numpy(rows)])


@dataclass(frozen=True)
class Grown:
    """A forest, and what rows held out said of it."""

    forest: Forest
    rounds: int
    held_loss: float
    """The mean on rows held out after as many rounds."""
    is_cut: bool
    """Whether the time was over before the losses stopped falling."""


@dataclass(frozen=True)
class Tried:
    """What rows held out said: losses (H,) after the number of rounds that suits them best."""

    losses: NDArray[np.float64]
    rounds: int
    is_cut: bool


def fit(lesson: Lesson, seed: int, seconds: float = 0.0, known: Tried | None = None) -> Grown:
    """Trees for the rows; how many, rows held out decide, unless that is known from a trial.

    `seconds` is a budget, 0 for none.
    """
    began = time.perf_counter()
    ends = [began + seconds * share if seconds else inf for share in (0.6, 0.95)]
    found = known or hold_out(lesson, seed, ends[0])
    rounds, is_cut = found.rounds, found.is_cut
    several = [Boosting(lesson, seed + n) for n in range(FORESTS if lesson.is_few else 1)]
    made = 0
    while made < rounds and (made == 0 or time.perf_counter() < ends[1]):
        for boosting in several:
            boosting.step()
        made += 1
    return Grown(forest_of(several), made, float(found.losses.mean()), is_cut or made < rounds)


def hold_out(lesson: Lesson, seed: int, end: float = inf) -> Tried:
    """Trees from most rows, measured on the others, each in its turn; until the moment `end`."""
    folds = list(folds_of(lesson.rows, seed))
    curves = []
    for number, (kept, held) in enumerate(folds):
        now = time.perf_counter()
        stop = now + (end - now) / (len(folds) - number)
        curves.append(_curve(lesson.take(kept), lesson.take(held), seed, stop))
    rounds = max(len(curve) for curve, _ in curves)
    filled = [np.pad(c, ((0, rounds - len(c)), (0, 0)), mode="edge") for c, _ in curves]
    losses = np.concatenate(filled, axis=1)  # (R, H)
    best = max(1, int(losses[1:].mean(axis=1).argmin()) + 1) if rounds > 1 else 1
    return Tried(losses[min(best, rounds - 1)], best, any(is_cut for _, is_cut in curves))


def folds_of(rows: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Rows to learn from and rows held out: each row in its turn, or some where there are many.

    >>> [held.tolist() for _, held in folds_of(5, seed=0)]
    [[2, 4], [3], [0], [1]]
    """
    order = np.random.default_rng(seed).permutation(rows)
    if rows >= MANY_ROWS:
        cut = int(rows * HELD_SHARE)
        yield np.sort(order[cut:]), np.sort(order[:cut])
        return
    parts = np.array_split(order, FOLDS)
    for number, held in enumerate(parts):
        others = [part for n, part in enumerate(parts) if n != number]
        yield np.sort(np.concatenate(others)), np.sort(held)


def _curve(kept: Lesson, held: Lesson, seed: int, end: float) -> tuple[NDArray[np.float64], bool]:
    """Losses of held rows (R, H) by rounds before, until they no longer fall."""
    boosting = Boosting(kept, seed)
    told = boosting.binned(held)
    outputs = boosting.base.repeat(held.rows, 1)
    losses = [_losses(held, outputs)]
    best, lowest = 0, float(losses[0].mean())
    while len(losses) <= MOST_ROUNDS and len(losses) - best <= PATIENCE:
        if time.perf_counter() > end:
            return np.stack(losses), True
        outputs = outputs + boosting.told(boosting.step(), told)
        losses.append(_losses(held, outputs))
        if (mean := float(losses[-1].mean())) < lowest:
            best, lowest = len(losses) - 1, mean
    return np.stack(losses), False


def _losses(lesson: Lesson, outputs: Tensor) -> NDArray[np.float64]:
    return lesson.losses(outputs, lesson.truth).detach().double().numpy()


class Boosting:
    """Trees that are added, round by round: one for each direction that outputs move in."""

    def __init__(self, lesson: Lesson, seed: int):
        from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper

        self.lesson = lesson
        self.features = features_of(lesson.arrays)
        self.random = np.random.default_rng(seed)
        values = self.features.of(lesson.arrays)
        self.bins = _BinMapper(n_bins=BINS, random_state=0).fit(values.astype(np.float64))
        self.training = self.binned(lesson)
        self.directions, self.steepness = _directions(lesson)
        self.base = self._base()
        self.outputs = self.base.repeat(lesson.rows, 1)
        self.rounds: list[list[Any]] = []
        leaves = int(sqrt(lesson.rows) / 4)
        self.leaves = min(MOST_LEAVES, max(FEWEST_LEAVES, leaves))

    def binned(self, lesson: Lesson) -> NDArray[np.uint8]:
        """Which bin each feature of each row is in (B, F)."""
        values = self.features.of(lesson.arrays).astype(np.float64)
        found: NDArray[np.uint8] = np.asfortranarray(self.bins.transform(values))
        return found

    def step(self) -> list[Any]:
        """Add a round of trees, and give it."""
        slopes, curves = self._slopes(self.outputs)
        grown = [self._grow(s, c) for s, c in zip(slopes.T, curves.T, strict=True)]
        self.outputs = self.outputs + self.told(grown, self.training)
        self.rounds.append(grown)
        return grown

    def told(self, grown: list[Any], binned: NDArray[np.uint8]) -> Tensor:
        """What a round adds to the outputs of rows (B, C)."""
        missing = self.bins.missing_values_bin_idx_
        added = [tree.predict_binned(binned, missing, 1) for tree in grown]
        return torch.from_numpy(np.column_stack(added).astype(np.float32)) @ self.directions

    def _base(self) -> Tensor:
        """Outputs (1, C) that fit all rows alike, by Newton's steps from 0."""
        base = torch.zeros(1, self.lesson.width)
        for _ in range(START_STEPS):
            slopes, curves = self._slopes(base.repeat(self.lesson.rows, 1))
            step = torch.from_numpy(-slopes.sum(0) / curves.sum(0))
            base = base + step.clamp(-FARTHEST_STEP, FARTHEST_STEP) @ self.directions
        return base

    def _grow(self, slopes: NDArray[np.float32], curves: NDArray[np.float32]) -> Any:
        from sklearn.ensemble._hist_gradient_boosting.grower import TreeGrower

        grower = TreeGrower(
            X_binned=self.training,
            gradients=np.ascontiguousarray(slopes),
            hessians=np.ascontiguousarray(curves),
            n_bins=BINS,
            n_bins_non_missing=self.bins.n_bins_non_missing_,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=LEAF_ROWS,
            l2_regularization=PENALTY,
            feature_fraction_per_split=COLUMNS_PER_SPLIT,
            rng=self.random,
            shrinkage=RATE if self.lesson.is_few else RATE_OF_MANY,
        )
        grower.grow()
        return grower.make_predictor(binning_thresholds=self.bins.bin_thresholds_)

    def _slopes(self, outputs: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Slope and curvature of each row's loss along each direction (B, D)."""
        slopes, curves = _along(self.lesson, outputs, self.directions)
        return slopes.numpy(), (curves * self.steepness).numpy()


def forest_of(several: Sequence[Boosting]) -> Forest:
    """The mean of what several have grown from the same rows."""
    trees = [
        (tree.nodes, direction / len(several))
        for boosting in several
        for grown in boosting.rounds
        for tree, direction in zip(grown, boosting.directions, strict=True)
    ]
    return Forest.of(several[0].features, trees, several[0].base)


def features_of(arrays: Arrays) -> "Features":
    """Numbers as they are; codes as they are, and whether they are each of the first ones."""
    source, wanted, start = [], [], 0
    for name in sorted(arrays):
        array = arrays[name]
        for column in range(array.shape[1]):
            source.append(start + column)
            wanted.append(-1.0)
            if np.issubdtype(array.dtype, np.integer):
                codes = np.unique(array[:, column])[:INDICATED]
                source += [start + column] * len(codes)
                wanted += codes.astype(float).tolist()
        start += array.shape[1]
    return Features(tuple(sorted(arrays)), np.array(source), np.array(wanted, dtype=np.float32))


def _along(lesson: Lesson, outputs: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of each row's loss along each direction (B, D).

    Where a loss bends nowhere (it is made of straight lines), the curvature counts as 1.
    """
    outputs = outputs.detach().requires_grad_()
    losses = lesson.losses(outputs, lesson.truth)
    [gradient] = torch.autograd.grad(losses.sum(), outputs, create_graph=True)
    slopes = gradient @ directions.T
    curves = torch.zeros_like(slopes)
    if slopes.requires_grad:
        for number, direction in enumerate(directions):
            [second] = torch.autograd.grad(slopes[:, number].sum(), outputs, retain_graph=True)
            curves[:, number] = second @ direction
    if not bool((curves > FLAT).any()):
        curves = torch.ones_like(curves)
    return slopes.detach(), curves.detach().clamp_min(FLAT)


def _directions(lesson: Lesson) -> tuple[Tensor, float]:
    """The directions (D, C) that trees move outputs in, and what their curvature counts.

    Outputs of which only differences matter (a softmax's) are two sides of one direction, or of
    more than two each counts a share of its curvature more, since the others move as well
    (Friedman, J. et al. 2000, Additive logistic regression, algorithm 6).
    """
    width = lesson.width
    some = torch.randn(lesson.rows, width, generator=torch.Generator().manual_seed(0))
    slopes, _ = _along(lesson, some, torch.ones(1, width))
    if width == 1 or float(slopes.abs().max()) > 1e-4:
        return torch.eye(width), 1.0
    if width == 2:
        return torch.tensor([[-0.5, 0.5]]), 1.0
    return torch.eye(width), width / (width - 1)
