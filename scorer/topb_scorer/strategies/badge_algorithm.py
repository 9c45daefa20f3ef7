"""BADGE: k-means++ on gradient embeddings, large where the model is unsure, alike where samples are.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep batch active learning by diverse, uncertain gradient
lower bounds (ICLR 2020), algorithm 1; k-means++ seeding is Arthur and Vassilvitskii, k-means++: the
advantages of careful seeding (SODA 2007).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.geometry.euclidean import Doubles, Features, Indices, check_features
from topb_scorer.geometry.k_center import check_budget
from topb_scorer.strategies.probabilities import check_probabilities

_PICKS_BETWEEN_PASSES = 128
"""So that a pass over the pool is a matrix product; few enough for most draws in between to be accepted."""
_ROWS_AT_ONCE = 8192
_NO_MORE_THAN_ROUNDING = 1e-4


@dataclass(frozen=True)
class BadgeBatch:
    """What BADGE picked."""

    indices: Indices
    """int64 (b,): rows, in pick order."""
    distances: Doubles
    """float64 (b,): how far the gradient embedding of each lay from the nearest one picked before it;
    infinite for the first. 0 once only duplicates are left."""


def badge(
    *, features: Features, probabilities: NDArray[np.float32], budget: int, seed: int = 0
) -> BadgeBatch:
    """Returns `budget` rows by k-means++ seeding on their gradient embeddings.

    The embedding of a row is the gradient of the cross-entropy in the last layer's weights, were the
    predicted class the right one: (p − onehot(argmax p)) ⊗ features, C·D numbers. It is never built. A
    distance needs only inner products of both factors: ⟨a ⊗ h, a′ ⊗ h′⟩ = ⟨a, a′⟩⟨h, h′⟩.

    The first row is drawn uniformly; each next one with probability in proportion to its squared distance to
    the nearest row picked so far, D². Distances are brought up to date for the whole pool once in many picks,
    as a matrix product. In between they are upper bounds: a row is drawn in proportion to its bound, and
    accepted with probability true distance / bound, or else another is drawn, which is drawing by the true
    distances (rejection sampling). Once all that is left is at distance 0 the lowest indices follow.

    Args:
        features: float32 (N, D), finite: what the last layer takes.
        probabilities: float32 (N, C).
        budget: how many rows to pick, 0 to N.
        seed: of the draws; the same seed picks the same rows on the same machine.

    Raises:
        InvalidRequestError: with reason PROBABILITIES_SHAPE, PROBABILITIES_OUT_OF_RANGE, or as
            `k_center.k_center_greedy`.
    """
    check_features(features, "features")
    check_probabilities(probabilities, len(features))
    check_budget(budget, len(features))
    if budget == 0:
        return BadgeBatch(np.empty(0, np.int64), np.empty(0))
    gradients = _Gradients(features, probabilities)
    random = np.random.default_rng(seed)
    bounds = np.full(len(features), np.inf)
    picks = fresh = [int(random.integers(len(features)))]
    distances = [np.inf]
    while len(picks) < budget:
        gradients.lower(bounds, np.array(fresh))
        bounds[picks] = 0.0
        missing = budget - len(picks)
        fresh, fresh_distances = _draw(gradients, bounds, min(_PICKS_BETWEEN_PASSES, missing), random)
        if not fresh:
            fresh = np.setdiff1d(np.arange(len(features)), picks)[:missing].tolist()
            fresh_distances = [0.0] * missing
        picks = picks + fresh
        distances += fresh_distances
    return BadgeBatch(np.array(picks, np.int64), np.array(distances))


def _draw(
    gradients: _Gradients, bounds: Doubles, at_most: int, random: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Returns rows drawn by D², and their distances; fewer than `at_most` once most draws are rejected.

    None only if all of `bounds`, which are distances then, are 0.
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


class _Gradients:
    """Gradient embeddings, by their two factors, times a scale at which float32 does not overflow."""

    def __init__(self, features: Features, probabilities: NDArray[np.float32]) -> None:
        self._features = features
        self._probabilities = probabilities
        self._predicted = probabilities.argmax(axis=1)
        largest = max(float(features.max()), -float(features.min()))
        self.scale = 2.0 ** -int(np.clip(np.frexp(largest)[1], -126, 126))
        self._norms = np.empty(len(features))
        for block in self._blocks():
            errors, rows = self._factors(block, np.float64)
            self._norms[block] = (errors**2).sum(axis=1) * (rows**2).sum(axis=1)

    def lower(self, bounds: Doubles, centres: Indices) -> None:
        """Lowers `bounds`, float64 (N,), to the squared distances to the nearest of `centres` where that is
        less.

        In float32; what that could not tell from 0, in float64.
        """
        centre_errors, centre_rows = self._factors(centres, np.float32)
        centre_norms = self._norms[centres].astype(np.float32)
        for block in self._blocks():
            errors, rows = self._factors(block, np.float32)
            # Some BLAS kernels raise the flag in lanes beyond the matrix; no factor here is invalid.
            with np.errstate(invalid="ignore"):
                products = rows @ centre_rows.T
                products *= errors @ centre_errors.T
            products *= -2
            products += centre_norms
            nearest = products.argmin(axis=1)
            squared = products[np.arange(len(block)), nearest] + self._norms[block]
            for i in np.flatnonzero(squared < _NO_MORE_THAN_ROUNDING * self._norms[block]):
                squared[i] = self.squared_distance(int(block[i]), [int(centres[nearest[i]])])
            bounds[block] = np.minimum(bounds[block], squared)

    def squared_distance(self, row: int, centres: list[int]) -> float:
        """Returns the squared distance of a row to the nearest of `centres`, in float64; infinity to none."""
        errors, rows = self._factors(np.array([row, *centres]), np.float64)
        products = (rows[1:] @ rows[0]) * (errors[1:] @ errors[0])
        squared = self._norms[row] + self._norms[centres] - 2 * products
        return max(0.0, float(squared.min(initial=np.inf)))

    def _blocks(self) -> Iterator[Indices]:
        for first in range(0, len(self._features), _ROWS_AT_ONCE):
            yield np.arange(first, min(first + _ROWS_AT_ONCE, len(self._features)))

    def _factors(self, rows: Indices, precision: type) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Returns (n, C), the predicted less the true probabilities, and (n, D), the features."""
        errors: NDArray[np.floating] = self._probabilities[rows].astype(precision)
        errors[np.arange(len(rows)), self._predicted[rows]] -= 1
        return errors, self._features[rows].astype(precision) * precision(self.scale)
