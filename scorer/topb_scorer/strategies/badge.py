"""BADGE: k-means++ seeding on gradient embeddings.

The embeddings are long where the model is uncertain, and close to each other for similar images.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep batch active learning by diverse, uncertain gradient
lower bounds (ICLR 2020), algorithm 1. k-means++ seeding: Arthur and Vassilvitskii, k-means++: the advantages
of careful seeding (SODA 2007).

The embedding of a row is the gradient of the cross-entropy with respect to the weights of the last layer,
assuming that the predicted class is the true one: (p − onehot(argmax p)) ⊗ features, with C·D elements. It is
never computed, because distances only need inner products of its two factors:
⟨a ⊗ h, a′ ⊗ h′⟩ = ⟨a, a′⟩⟨h, h′⟩.

As in `geometry.euclidean`, matrix products only rule out pairs. Distances are computed pair by pair in
float64, so they depend neither on the blocks nor on the number of threads of the matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.geometry.euclidean import HITS_WORTH_FLOAT64, Doubles, Indices, blocks, open_pairs
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite

_ROWS_AT_ONCE = 8192
_PAIRS_AT_ONCE = 2048


@dataclass(frozen=True)
class Badge(SetBasedStrategy):
    """Pick images that are uncertain and different from each other."""

    name = "badge"
    needs = frozenset({"features", "probabilities"})
    uses_labelled = False

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
            self._norms[block] = self._inner_products(block, block)

    def lower(self, bounds: Doubles, centres: Indices) -> None:
        """Lower each of `bounds` to the squared distance to the nearest of `centres` if that is smaller.

        Args:
            bounds: float64 (N,), squared distances; changed in place.
            centres: int64 (m,), indices of rows.
        """
        for block in self._blocks():
            rows, columns = self._open_pairs(block, centres, bounds[block], np.float32)
            if len(rows) > HITS_WORTH_FLOAT64 * len(block):
                rows, columns = self._open_pairs(block, centres, bounds[block], np.float64)
            for pairs in checked(blocks(len(rows), _PAIRS_AT_ONCE), self._check):
                some = block[rows[pairs]]
                np.minimum.at(bounds, some, self._squared_distances(some, centres[columns[pairs]]))

    def squared_distance(self, row: int, centres: list[int]) -> float:
        """Return the squared distance of a row to the nearest of `centres`, or infinity without centres."""
        to_centres = self._squared_distances(np.full(len(centres), row), np.array(centres, np.int64))
        return float(to_centres.min(initial=np.inf))

    def _open_pairs(
        self, rows: Indices, centres: Indices, nearest: Doubles, precision: type
    ) -> tuple[Indices, Indices]:
        """Return the positions of all pairs of which one can lower `nearest`, as `open_pairs` does.

        The rounding error of ‖x‖² + ‖y‖² − 2⟨x, y⟩ is at most ε(‖x‖² + ‖y‖²). ε is the sum of γ_D and γ_C for
        the products of the two factors, and 16u for their rounding and for the sums.
        """
        errors, features = self._factors(rows, precision)  # (n, C), (n, D)
        centre_errors, centre_features = self._factors(centres, precision)  # (m, C), (m, D)
        terms = errors.shape[1] + features.shape[1] + 16
        slack = 1.01 * terms * float(np.finfo(precision).eps) / 2
        underflow = 8 * terms * float(np.finfo(precision).tiny)
        # Some BLAS kernels set the invalid flag in lanes beyond the matrix. The factors are all valid.
        with np.errstate(invalid="ignore"):
            products = features @ centre_features.T  # (n, m)
            products *= errors @ centre_errors.T
        products *= -2
        products += (self._norms[centres] * (1 - slack)).astype(precision)
        uncertain = 2 * slack * (self._norms[rows] + self._norms[centres].max()) + 2 * underflow
        return open_pairs(products, self._norms[rows] * (1 - slack) - underflow, uncertain, nearest)

    def _squared_distances(self, rows: Indices, others: Indices) -> Doubles:
        """Return the squared distances of pairs of rows, float64 (n,). Those of duplicates are 0."""
        norms = self._norms[rows] + self._norms[others]
        squared: Doubles = np.maximum(norms - 2 * self._inner_products(rows, others), 0.0)
        return squared

    def _inner_products(self, rows: Indices, others: Indices) -> Doubles:
        """Return the inner products of pairs of rows, float64 (n,)."""
        errors, features = self._factors(rows, np.float64)
        other_errors, other_features = self._factors(others, np.float64)
        of_errors: Doubles = np.einsum("ij,ij->i", errors, other_errors)
        of_errors *= np.einsum("ij,ij->i", features, other_features)
        return of_errors

    def _blocks(self) -> Iterator[Indices]:
        for block in checked(blocks(len(self._features), _ROWS_AT_ONCE), self._check):
            yield np.arange(block.start, block.stop)

    def _factors(self, rows: Indices, precision: type) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return predicted minus assumed probabilities, (n, C), and scaled features, (n, D)."""
        errors: NDArray[np.floating] = self._probabilities[rows].astype(precision)
        errors[np.arange(len(rows)), self._predicted[rows]] -= 1
        return errors, self._features[rows].astype(precision) * precision(self.scale)
