"""Define the base classes of query strategies. Each strategy has its own module; its options are fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.errors import InvalidRequestError
from topb_scorer.geometry.euclidean import blocks, check_features
from topb_scorer.scoring.scored_rows import ScoredRows

_BYTES_A_ROW = 64
"""A few numbers for each row, such as its distance to the nearest pick."""

Output = Literal["score", "probabilities", "features"]
"""An output of a model."""


@dataclass(frozen=True)
class Strategy(ABC):
    """The base class of all query strategies."""

    name: ClassVar[str]
    """The name of the strategy in requests."""
    needs: ClassVar[frozenset[Output]]
    """The model outputs that the strategy uses. The meaning of `score` depends on the training method, so a
    strategy that uses it is served only by models that declare it. All models serve the other strategies."""


class PointwiseStrategy(Strategy):
    """A strategy that scores each row separately. The b rows with the highest scores are picked."""

    @abstractmethod
    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the acquisition scores, float64 (n,). Rows with higher scores are picked first.

        Each score must depend only on its row and the seed. Scores of skipped rows are ignored; all other
        scores must be finite.
        """


class SetBasedStrategy(Strategy):
    """A strategy that picks a set of rows together, based on their features."""

    uses_labelled: ClassVar[bool] = True
    """Whether the picks depend on the features of labelled images."""

    @property
    def shortlist(self) -> Shortlist | None:
        """The rows from which the strategy picks; None for the whole pool."""
        return None

    def working_bytes(self, candidates: int, labelled: int, width: int, budget: int) -> int:
        """Return the memory that `select` takes besides its arguments and buffers of constant size, in bytes.

        Args:
            candidates: N.
            labelled: L.
            width: D.
            budget: the number of rows to pick.
        """
        return _BYTES_A_ROW * (candidates + labelled)

    @abstractmethod
    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return at most `budget` of the candidates, in the order in which they are picked.

        Args:
            candidates: N rows to pick from, N ≥ 1.
            budget: the number of rows to pick, 1 to N.
            seed: the seed for all random draws.
            check: called between steps, so that a cancelled selection stops soon: at least once for each pick
                and each block of rows.
        """


QueryStrategy = PointwiseStrategy | SetBasedStrategy
"""Any query strategy."""


@dataclass(frozen=True)
class Shortlist:
    """The best rows of a pointwise strategy, from which a set-based strategy picks."""

    strategy: PointwiseStrategy
    """The strategy that ranks the pool."""
    candidates_per_pick: int
    """The number of rows on the shortlist per row of the budget."""


@dataclass(frozen=True)
class SetCandidates:
    """The rows from which a set-based strategy picks, sorted by id so that the reading order has no effect.

    Raises:
        InvalidRequestError: with reason FEATURES_SHAPE, FEATURES_DTYPE, FEATURES_NOT_FINITE,
            PROBABILITIES_SHAPE or PROBABILITIES_OUT_OF_RANGE.
    """

    features: NDArray[np.float32]
    """float32 (N, D): features of the task model, finite."""
    labelled: NDArray[np.float32]
    """float32 (L, D): features of the labelled images, finite; L may be 0."""
    probabilities: NDArray[np.float32]
    """float32 (N, C): predicted class probabilities; (N, 0) if the strategy does not need them."""
    scores: NDArray[np.float64]
    """float64 (N,): acquisition scores by which the shortlist was made; zeros without a shortlist."""
    search_device: str = "cpu"
    """The device on which FAISS searches for labelled neighbours: `cpu` or `cuda:<index>`."""

    def __post_init__(self) -> None:
        check_features(self.features, self.labelled, "features")
        _check_probabilities(self.probabilities, len(self.features))


@dataclass(frozen=True)
class SetBatch:
    """The picks of a set-based strategy."""

    indices: NDArray[np.int64]
    """int64 (n,): indices of candidates, in pick order."""
    scores: NDArray[np.float64]
    """float64 (n,): the strategy's score of each pick at the time of picking; finite."""
    radii: NDArray[np.float64] | None = None
    """float64 (n,): distance of each pick to the nearest labelled row or earlier pick, if known."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the whole batch by name."""


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace infinite values with 0. The first pick may have an infinite distance."""
    return np.where(np.isfinite(values), values, 0.0)


def _check_probabilities(probabilities: NDArray[np.float32], size: int) -> None:
    if probabilities.ndim != 2 or len(probabilities) != size or probabilities.dtype != np.float32:
        raise InvalidRequestError(
            f"probabilities are {probabilities.dtype} of shape {probabilities.shape}; "
            f"expected float32 of shape ({size}, C)",
            reason="PROBABILITIES_SHAPE",
            shape=probabilities.shape,
        )
    for block in blocks(size):
        valid = ((probabilities[block] >= 0) & (probabilities[block] <= 1)).all(axis=1)
        if not valid.all():
            row = block.start + int(np.argmin(valid))
            raise InvalidRequestError(
                f"row {row} of the probabilities contains a value outside [0, 1]; use a model whose output "
                "`probabilities` is in this range",
                reason="PROBABILITIES_OUT_OF_RANGE",
                row=row,
            )
