"""BADGE: k-means++ seeding on gradient embeddings.

The embeddings are long where the model is uncertain, and close to each other for similar images.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep batch active learning by diverse, uncertain gradient
lower bounds (ICLR 2020), algorithm 1. k-means++ seeding: Arthur and Vassilvitskii, k-means++: the advantages
of careful seeding (SODA 2007).

The embedding of a row is the gradient of the cross-entropy with respect to the weights of the last layer,
assuming that the predicted class is the true one: (p − onehot(argmax p)) ⊗ features, with C·D elements. It is
never computed, because distances only need inner products of its two factors:
⟨a ⊗ h, a′ ⊗ h′⟩ = ⟨a, a′⟩⟨h, h′⟩.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.geometry.euclidean import Doubles, Indices, blocks
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite

_ROWS_AT_ONCE = 8192
_NO_MORE_THAN_ROUNDING = 1e-4


@dataclass(frozen=True)
class Badge(SetBasedStrategy):
    """Pick images that are uncertain and different from each other."""

    name = "badge"
    needs = frozenset({"features", "probabilities"})

    picks_between_passes: int = 128
    """Draws between two passes over the pool. More draws make a pass an efficient matrix product, but fewer
    draws are accepted. The number does not affect the distribution."""

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return `budget` rows drawn by k-means++ seeding. Scores are distances to the nearest earlier draw.

        The first row is drawn uniformly, and each further row with probability proportional to D², its
        squared distance to the nearest row drawn so far. Distances are updated only after many draws, in one
        matrix product over the whole pool; in between they are upper bounds. A row is drawn in proportion to
        its bound and accepted with probability (true D² / bound), which is equivalent to drawing in
        proportion to D² (rejection sampling). When only duplicates are left, the rows with the lowest indices
        are picked, at distance 0.
        """
        size = len(candidates.features)
        gradients = _GradientEmbeddings(candidates, check)
        random = np.random.default_rng(seed)
        bounds = np.full(size, np.inf)
        picks = fresh = [int(random.integers(size))]
        distances = [np.inf]
        while len(picks) < budget:
            gradients.lower(bounds, np.array(fresh))
            bounds[picks] = 0.0
            missing = budget - len(picks)
            at_most = min(self.picks_between_passes, missing)
            fresh, fresh_distances = _draw(gradients, bounds, at_most, random, check)
            if not fresh:
                fresh = np.setdiff1d(np.arange(size), picks)[:missing].tolist()
                fresh_distances = [0.0] * missing
            picks = picks + fresh
            distances += fresh_distances
        return SetBatch(np.array(picks, np.int64), finite(np.array(distances)))


def _draw(
    gradients: _GradientEmbeddings, bounds: Doubles, at_most: int, random: np.random.Generator, check: Check
) -> tuple[list[int], list[float]]:
    """Return rows drawn in proportion to D², and their distances.

    There are fewer than `at_most` rows if most draws are rejected, and none only if all `bounds` are 0.
    """
    cumulated = np.cumsum(bounds)
    picks: list[int] = []
    distances: list[float] = []
    rejected = 0
    while len(picks) < at_most and rejected <= at_most + len(picks) and cumulated[-1] > 0:
        check()
        drawn = np.searchsorted(cumulated, random.random() * cumulated[-1], side="right")
        row = min(int(drawn), len(bounds) - 1)
        squared = min(float(bounds[row]), gradients.squared_distance(row, picks))
        if row not in picks and random.random() * bounds[row] < squared:
            picks.append(row)
            distances.append(squared**0.5 / gradients.scale)
        else:
            rejected += 1
    return picks, distances


class _GradientEmbeddings:
    """Gradient embeddings as pairs of factors, which are scaled so that float32 does not overflow."""

    def __init__(self, candidates: SetCandidates, check: Check) -> None:
        self._features = candidates.features  # (N, D)
        self._probabilities = candidates.probabilities  # (N, C)
        self._predicted = candidates.probabilities.argmax(axis=1)  # (N,)
        largest = max(float(self._features.max()), -float(self._features.min()))
        self.scale = 2.0 ** -int(np.clip(np.frexp(largest)[1], -126, 126))
        self._check = check
        self._norms = np.empty(len(self._features))  # (N,), squared
        for block in self._blocks():
            errors, rows = self._factors(block, np.float64)
            self._norms[block] = (errors**2).sum(axis=1) * (rows**2).sum(axis=1)

    def lower(self, bounds: Doubles, centres: Indices) -> None:
        """Lower each of `bounds` to the squared distance to the nearest of `centres` if that is smaller.

        Distances are computed in float32, and again in float64 where float32 cannot distinguish them from 0.

        Args:
            bounds: float64 (N,), squared distances; changed in place.
            centres: int64 (m,), indices of rows.
        """
        centre_errors, centre_rows = self._factors(centres, np.float32)  # (m, C), (m, D)
        centre_norms = self._norms[centres].astype(np.float32)
        for block in self._blocks():
            errors, rows = self._factors(block, np.float32)  # (n, C), (n, D)
            # Some BLAS kernels set the invalid flag in lanes beyond the matrix. The factors are all valid.
            with np.errstate(invalid="ignore"):
                products = rows @ centre_rows.T  # (n, m)
                products *= errors @ centre_errors.T
            products *= -2
            products += centre_norms
            nearest = products.argmin(axis=1)
            squared = products[np.arange(len(block)), nearest] + self._norms[block]
            unsure = np.flatnonzero(squared < _NO_MORE_THAN_ROUNDING * self._norms[block])
            for i in checked(unsure, self._check):
                squared[i] = self.squared_distance(int(block[i]), [int(centres[nearest[i]])])
            bounds[block] = np.minimum(bounds[block], squared)

    def squared_distance(self, row: int, centres: list[int]) -> float:
        """Return the squared distance of a row to the nearest of `centres`, or infinity without centres."""
        errors, rows = self._factors(np.array([row, *centres]), np.float64)
        products = (rows[1:] @ rows[0]) * (errors[1:] @ errors[0])
        squared = self._norms[row] + self._norms[centres] - 2 * products
        return max(0.0, float(squared.min(initial=np.inf)))

    def _blocks(self) -> Iterator[Indices]:
        for block in checked(blocks(len(self._features), _ROWS_AT_ONCE), self._check):
            yield np.arange(block.start, block.stop)

    def _factors(self, rows: Indices, precision: type) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return predicted minus assumed probabilities, (n, C), and scaled features, (n, D)."""
        errors: NDArray[np.floating] = self._probabilities[rows].astype(precision)
        errors[np.arange(len(rows)), self._predicted[rows]] -= 1
        return errors, self._features[rows].astype(precision) * precision(self.scale)
