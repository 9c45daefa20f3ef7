"""BADGE: k-means++ on gradient embeddings, large where the model is unsure, alike for similar images.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep batch active learning by diverse, uncertain gradient
lower bounds (ICLR 2020), algorithm 1. k-means++ seeding: Arthur and Vassilvitskii, k-means++: the advantages
of careful seeding (SODA 2007).

The embedding of a row is the gradient of the cross-entropy with respect to the weights of the last layer, if
the predicted class were the true one: (p − onehot(argmax p)) ⊗ features, which has C·D elements. It is never
built. A distance only needs inner products of the two factors: ⟨a ⊗ h, a′ ⊗ h′⟩ = ⟨a, a′⟩⟨h, h′⟩.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.geometry.euclidean import Doubles, Indices, blocks
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite

_ROWS_AT_ONCE = 8192
_NO_MORE_THAN_ROUNDING = 1e-4


@dataclass(frozen=True)
class Badge(SetBasedStrategy):
    """Draw images that are uncertain and different from each other."""

    name = "badge"
    needs = frozenset({"features", "probabilities"})

    picks_between_passes: int = 128
    """Draws between two passes over the pool: enough to make a pass a matrix product, few enough that most
    draws are accepted. Any number draws from the same distribution."""

    def select(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Return `budget` rows drawn by k-means++ seeding; scores are distances to the nearest earlier draw.

        The first row is drawn uniformly, each next one with probability proportional to D², its squared
        distance to the nearest row drawn so far. Distances are updated for the whole pool only once in many
        draws, as a matrix product; in between they are upper bounds. So a row is drawn in proportion to its
        bound and accepted with probability (true D² / bound), which is equivalent to drawing by true
        distances (rejection sampling). Once only duplicates are left, the lowest indices follow,
        at distance 0.
        """
        size = len(candidates.features)
        gradients = _GradientEmbeddings(candidates)
        random = np.random.default_rng(seed)
        bounds = np.full(size, np.inf)
        picks = fresh = [int(random.integers(size))]
        distances = [np.inf]
        while len(picks) < budget:
            gradients.lower(bounds, np.array(fresh))
            bounds[picks] = 0.0
            missing = budget - len(picks)
            fresh, fresh_distances = _draw(gradients, bounds, min(self.picks_between_passes, missing), random)
            if not fresh:
                fresh = np.setdiff1d(np.arange(size), picks)[:missing].tolist()
                fresh_distances = [0.0] * missing
            picks = picks + fresh
            distances += fresh_distances
        return SetBatch(np.array(picks, np.int64), finite(np.array(distances)))


def _draw(
    gradients: _GradientEmbeddings, bounds: Doubles, at_most: int, random: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Return rows drawn by D² and their distances; fewer than `at_most` if most draws are rejected.

    The lists are empty only if all `bounds`, which are distances at first, are 0.
    """
    cumulated = np.cumsum(bounds)
    picks: list[int] = []
    distances: list[float] = []
    rejected = 0
    while len(picks) < at_most and rejected <= at_most + len(picks) and cumulated[-1] > 0:
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
    """Gradient embeddings by their two factors, scaled so that float32 does not overflow."""

    def __init__(self, candidates: SetCandidates) -> None:
        self._features = candidates.features  # (N, D)
        self._probabilities = candidates.probabilities  # (N, C)
        self._predicted = candidates.probabilities.argmax(axis=1)  # (N,)
        largest = max(float(self._features.max()), -float(self._features.min()))
        self.scale = 2.0 ** -int(np.clip(np.frexp(largest)[1], -126, 126))
        self._norms = np.empty(len(self._features))  # (N,), squared
        for block in self._blocks():
            errors, rows = self._factors(block, np.float64)
            self._norms[block] = (errors**2).sum(axis=1) * (rows**2).sum(axis=1)

    def lower(self, bounds: Doubles, centres: Indices) -> None:
        """Lower `bounds`, float64 (N,), to the squared distances to the nearest of `centres` where smaller.

        Computed in float32, and again in float64 where float32 cannot tell the distance from 0.
        """
        centre_errors, centre_rows = self._factors(centres, np.float32)  # (m, C), (m, D)
        centre_norms = self._norms[centres].astype(np.float32)
        for block in self._blocks():
            errors, rows = self._factors(block, np.float32)  # (n, C), (n, D)
            # Some BLAS kernels raise the flag in lanes beyond the matrix; no factor here is invalid.
            with np.errstate(invalid="ignore"):
                products = rows @ centre_rows.T  # (n, m)
                products *= errors @ centre_errors.T
            products *= -2
            products += centre_norms
            nearest = products.argmin(axis=1)
            squared = products[np.arange(len(block)), nearest] + self._norms[block]
            for i in np.flatnonzero(squared < _NO_MORE_THAN_ROUNDING * self._norms[block]):
                squared[i] = self.squared_distance(int(block[i]), [int(centres[nearest[i]])])
            bounds[block] = np.minimum(bounds[block], squared)

    def squared_distance(self, row: int, centres: list[int]) -> float:
        """Return the squared distance of a row to the nearest of `centres`, in float64; infinity if none."""
        errors, rows = self._factors(np.array([row, *centres]), np.float64)
        products = (rows[1:] @ rows[0]) * (errors[1:] @ errors[0])
        squared = self._norms[row] + self._norms[centres] - 2 * products
        return max(0.0, float(squared.min(initial=np.inf)))

    def _blocks(self) -> list[Indices]:
        return [np.arange(block.start, block.stop) for block in blocks(len(self._features), _ROWS_AT_ONCE)]

    def _factors(self, rows: Indices, precision: type) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return (n, C), predicted minus assumed probabilities, and (n, D), the scaled features."""
        errors: NDArray[np.floating] = self._probabilities[rows].astype(precision)
        errors[np.arange(len(rows)), self._predicted[rows]] -= 1
        return errors, self._features[rows].astype(precision) * precision(self.scale)
