"""What a query strategy is. Each one has a module of its own; its options are dataclass fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import InvalidRequestError
from topb_scorer.geometry.euclidean import check_features
from topb_scorer.scoring.score_log import ScoredRows

Output = Literal["score", "probabilities", "features"]
"""An output of a model."""


@dataclass(frozen=True)
class Strategy(ABC):
    """What every query strategy declares."""

    name: ClassVar[str]
    """How requests name it."""
    needs: ClassVar[frozenset[Output]]
    """The outputs of the model that it uses. What `score` means depends on the model's method, so a
    strategy that needs it is served only by models that declare the strategy. Any model serves the others."""


class PointwiseStrategy(Strategy):
    """Values each row by itself; the b rows of highest acquisition score are picked."""

    @abstractmethod
    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the acquisition scores, float64 (n,), higher picked first.

        Each score must depend on its row and the seed alone. Scores of skipped rows are ignored; all others
        must be finite.
        """


class SetBasedStrategy(Strategy):
    """Values rows as a set: what is picked depends on what else is. It always works on features."""

    @property
    def shortlist(self) -> Shortlist | None:
        """The part of the pool that it picks from; None for all of it."""
        return None

    @abstractmethod
    def select(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Return at most `budget` of the candidates, in the order in which they are picked.

        Args:
            candidates: N rows to pick from, N ≥ 1.
            budget: how many rows to pick, 1 to N.
            seed: seeds all random draws.
        """


QueryStrategy = PointwiseStrategy | SetBasedStrategy
"""A strategy is either of the two."""


@dataclass(frozen=True)
class Shortlist:
    """The best candidates of a pointwise strategy, from which a set-based one picks."""

    strategy: PointwiseStrategy
    """Ranks the pool."""
    candidates_per_pick: int
    """Rows on the shortlist for each row of the budget."""


@dataclass(frozen=True)
class SetCandidates:
    """The rows from which a set-based strategy picks, ordered by id so that the reading order has no effect.

    Raises:
        InvalidRequestError: with reason FEATURES_SHAPE, FEATURES_DTYPE, FEATURES_NOT_FINITE,
            PROBABILITIES_SHAPE or PROBABILITIES_OUT_OF_RANGE.
    """

    features: NDArray[np.float32]
    """float32 (N, D): the task model's features, finite."""
    labelled: NDArray[np.float32]
    """float32 (L, D): features of the images that are labelled already, finite; L may be 0."""
    probabilities: NDArray[np.float32]
    """float32 (N, C): predicted class probabilities; (N, 0) if the strategy does not need them."""
    scores: NDArray[np.float64]
    """float64 (N,): acquisition scores of the strategy that made the shortlist; zeros without one."""
    search_device: str = "cpu"
    """Where FAISS searches for labelled neighbours: `cpu` or `cuda:<index>`."""

    def __post_init__(self) -> None:
        check_features(self.features, self.labelled, "features")
        _check_probabilities(self.probabilities, len(self.features))


@dataclass(frozen=True)
class SetBatch:
    """What a set-based strategy picked."""

    indices: NDArray[np.int64]
    """int64 (n,): rows of the candidates, in pick order."""
    scores: NDArray[np.float64]
    """float64 (n,): the strategy's own measure of each pick at the time it was picked; finite."""
    radii: NDArray[np.float64] | None = None
    """float64 (n,): distance of each pick to the nearest labelled row or earlier pick, if it is known."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the batch as a whole, by name."""


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values with infinite ones set to 0: the first pick of all has no distance to report."""
    return np.where(np.isfinite(values), values, 0.0)


def _check_probabilities(probabilities: NDArray[np.float32], size: int) -> None:
    if probabilities.ndim != 2 or len(probabilities) != size or probabilities.dtype != np.float32:
        raise InvalidRequestError(
            f"probabilities are {probabilities.dtype} of shape {probabilities.shape}; "
            f"expected float32 of shape ({size}, C)",
            reason="PROBABILITIES_SHAPE",
            shape=probabilities.shape,
        )
    valid = (probabilities >= 0) & (probabilities <= 1)
    if not valid.all():
        row = int(np.argmin(valid.all(axis=1)))
        raise InvalidRequestError(
            f"row {row} of the probabilities holds a value outside [0, 1]; export the model again so that "
            "its output `probabilities` holds probabilities",
            reason="PROBABILITIES_OUT_OF_RANGE",
            row=row,
        )
