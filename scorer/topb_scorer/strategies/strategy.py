"""What a query strategy is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


class PointwiseStrategy(Protocol):
    """Values each image by itself; the b of the highest acquisition scores are picked."""

    def __call__(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Acquisition scores float64 (n), larger picked first; each a function of its row and the seed."""


@dataclass(frozen=True)
class SetCandidates:
    """What a set-based strategy picks from, in the order of ids, so that no order of reading shows."""

    features: NDArray[np.float32]
    """(N, D) of the task model."""
    labelled: NDArray[np.float32]
    """(L, D) of the images that are labelled already."""
    probabilities: NDArray[np.float32]
    """(N, C), for strategies that need them; else (N, 0)."""
    scores: NDArray[np.float64]
    """(N) of the pointwise strategy that is diversified; else zeros."""
    search_device: str = "cpu"
    """Where FAISS searches for labelled neighbours, `cpu` or `cuda:<index>`."""


@dataclass(frozen=True)
class SetBatch:
    """What a set-based strategy picked."""

    indices: NDArray[np.int64]
    """(b) rows, in pick order."""
    scores: NDArray[np.float64]
    """(b) what the strategy measured of each when it was picked; finite."""
    radii: NDArray[np.float64] | None = None
    """(b) how far each lay from what was labelled or picked before it, where the strategy knows."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What it says of the batch as a whole, by name."""


class SetBasedStrategy(Protocol):
    """Values images as a set: what is picked depends on what else is."""

    def __call__(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """At most `budget` rows; `budget` is at most N."""


@dataclass(frozen=True)
class Plan:
    """A strategy with its options: either kind, or both where a pointwise one is diversified."""

    pointwise: PointwiseStrategy | None = None
    set_based: SetBasedStrategy | None = None
    needs_probabilities: bool = False
    """Of the set-based one."""
    candidates_a_pick: int = 0
    """Where both: so many of the best-scored rows a pick are picked from."""

    @property
    def needs_features(self) -> bool:
        """Whether the score log must hold features."""
        return self.set_based is not None


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, 0 in the place of infinite ones: a pick that nothing came before lies at no distance."""
    return np.where(np.isfinite(values), values, 0.0)
