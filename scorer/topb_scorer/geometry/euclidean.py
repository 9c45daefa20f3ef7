"""Squared Euclidean distances: float32 products rule pairs out, float64 differences decide the rest.

The expansion ‖x − y‖² = ‖x‖² + ‖y‖² − 2x·y runs at the speed of a matrix product, but it suffers from
cancellation: far from zero, float32 retains nothing of a small distance. So the expansion only serves as a
*lower bound*, from which a rigorous bound of the rounding error is subtracted (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., section 3.5: a sum of n products is off by at most γ_n Σ|xᵢyᵢ| with
γ_n = nu / (1 − nu), in any order of summation). Pairs that the bound cannot rule out are computed from their
differences in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import InvalidRequestError

Features = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

ROWS_AT_ONCE = 2048
"""Rows that are gathered and multiplied at once: 4 MiB at 512 dimensions, which fits into the cache."""
_SAMPLE = 1024
_LARGEST_SCALE = 126
"""2^126 and 2^−126 are normal float32 numbers."""
_HITS_WORTH_FLOAT64 = 8
"""Open pairs per row up to which differences are faster than a float64 product."""


def blocks(size: int, rows_at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Return the slices of at most `rows_at_once` rows that make up `size` rows."""
    return [slice(first, min(first + rows_at_once, size)) for first in range(0, size, rows_at_once)]


def check_features(pool: Features, labelled: Features, name: str = "pool") -> None:
    """Raise unless both are finite float32 arrays, of shape (N, D) and (L, D) with D ≥ 1.

    Args:
        pool: N rows.
        labelled: L rows.
        name: what messages call the pool.

    Raises:
        InvalidRequestError: with reason FEATURES_SHAPE, FEATURES_DTYPE or FEATURES_NOT_FINITE.
    """
    _check(pool, name)
    _check(labelled, "labelled")
    if pool.shape[1] != labelled.shape[1]:
        raise InvalidRequestError(
            f"rows of the pool have {pool.shape[1]} features, labelled rows {labelled.shape[1]}; "
            "both must come from the same model",
            reason="FEATURES_SHAPE",
            pool=pool.shape,
            labelled=labelled.shape,
        )


def _check(features: Features, name: str) -> None:
    if features.ndim != 2 or features.shape[1] == 0:
        raise InvalidRequestError(
            f"{name} has shape {features.shape}; expected (N, D) with D at least 1",
            reason="FEATURES_SHAPE",
            features=name,
            shape=features.shape,
        )
    if features.dtype != np.float32:
        raise InvalidRequestError(
            f"{name} is {features.dtype}; expected float32", reason="FEATURES_DTYPE", features=name
        )
    for block in blocks(len(features)):
        rows = features[block]
        if not np.isfinite(rows.max()) or not np.isfinite(rows.min()):
            row = block.start + int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise InvalidRequestError(
                f"row {row} of {name} is not finite; leave such rows out before selecting",
                reason="FEATURES_NOT_FINITE",
                features=name,
                row=row,
            )


def squared_distances(x: Features, y: Features) -> Doubles:
    """Return ‖xᵢ − yᵢ‖², float64 (n,), with a relative error of at most (D + 4) · 2^−53.

    Args:
        x: float32 (n, D).
        y: float32 (n, D), or (D,) for the same row each time.
    """
    differences = x.astype(np.float64)
    differences -= y
    summed: Doubles = np.einsum("ij,ij->i", differences, differences)
    return summed


@dataclass(frozen=True)
class Placed:
    """Rows with their coordinates in a `Frame`."""

    rows: Features
    """float32 (n, D): the rows as given."""
    near: NDArray[np.floating]
    """float32 or float64 (n, D): (rows − origin) · scale."""
    norms: Doubles
    """float64 (n,): ‖near‖², with the rounding error of a product at most."""

    def take(self, positions: Indices | slice) -> Placed:
        """Return the rows at `positions`, int64 (m,), or of a slice."""
        return Placed(self.rows[positions], self.near[positions], self.norms[positions])


@dataclass(frozen=True)
class Frame:
    """The coordinates in which products are computed.

    They are near zero, so that little cancels, and at most 4 in magnitude, so that no square overflows.
    """

    origin: Features
    """float32 (D,): the median of a sample in each column, which is insensitive to outliers."""
    scale: float
    """A power of two, so that multiplying by it is exact."""
    exact: frozenset[type] = frozenset()
    """The precisions in which products of these features have no rounding error at all."""
    rows_at_once: int = ROWS_AT_ONCE
    """How many rows are gathered and multiplied at once. It has no effect on any distance."""

    @classmethod
    def around(cls, *arrays: Features, rows_at_once: int = ROWS_AT_ONCE) -> Frame:
        """Return a frame for finite `arrays`, each float32 (n, D), of which at least one has a row."""
        middle = max(arrays, key=len)
        sample = np.sort(middle[:: max(1, len(middle) // _SAMPLE)], axis=0)
        largest = max(_largest(array) for array in arrays)
        scale = 2.0 ** -int(np.clip(np.frexp(largest)[1], -_LARGEST_SCALE, _LARGEST_SCALE))
        exact = _exact_precisions(arrays, largest, rows_at_once)
        return cls(sample[len(sample) // 2].copy(), scale, exact, rows_at_once)

    def place(self, rows: Features, precision: type = np.float32) -> Placed:
        """Return `rows`, float32 (n, D), with their coordinates in this frame, computed in `precision`."""
        scale = precision(self.scale)
        near = rows * scale if self.scale != 1.0 else rows.astype(precision)
        near -= self.origin * scale
        return Placed(rows, near, np.einsum("ij,ij->i", near, near).astype(np.float64))

    def slack(self, precision: type) -> float:
        """Return ε such that ‖a‖² + ‖b‖² − 2a·b in `precision` is off by at most ε(‖a‖² + ‖b‖²).

        4u for placing both rows, γ_D for the norms, 2γ_(D+1) for the product with a norm as one more term.
        """
        if precision in self.exact:
            return 0.0
        return 1.01 * (3 * len(self.origin) + 16) * float(np.finfo(precision).eps) / 2

    def lower_bounds(self, candidates: Placed, centres: Placed) -> tuple[NDArray[np.floating], Doubles]:
        """Return lower bounds: products[i, k] + offsets[i] ≤ ‖candidateᵢ − centreₖ‖² · scale².

        They are not added up: comparing each row of products with a threshold minus its offset saves two
        passes over the (n, m) array.

        Args:
            candidates: n rows.
            centres: m rows, placed in the same precision.

        Returns:
            products: (n, m) in the precision of both.
            offsets: float64 (n,).
        """
        precision = candidates.near.dtype.type
        kept = 1.0 - self.slack(precision)
        n, width = candidates.near.shape
        left = np.empty((n, width + 1), precision)
        left[:, :width] = candidates.near
        left[:, width] = 1
        right = np.empty((len(centres.near), width + 1), precision)
        np.multiply(centres.near, -2, out=right[:, :width])
        right[:, width] = centres.norms * kept
        # Some BLAS kernels raise the flag in lanes beyond the matrix; no factor here is invalid.
        with np.errstate(invalid="ignore"):
            products = left @ right.T
        return products, candidates.norms * kept - self._underflow(precision)

    def uncertainty(self, candidates: Placed, centres: Placed) -> Doubles:
        """Return float64 (n,): how far a candidate's squared distances exceed their lower bounds at most."""
        precision = candidates.near.dtype.type
        norms = candidates.norms + centres.norms.max(initial=0.0)
        uncertain: Doubles = 2 * self.slack(precision) * norms + 2 * self._underflow(precision)
        return uncertain

    def nearer(self, candidates: Placed, centres: Placed, nearest: Doubles) -> None:
        """Lower `nearest` in place to the distance of the nearest centre where that is smaller.

        Args:
            candidates: n rows.
            centres: m rows.
            nearest: float64 (n,), squared distances as `squared_distances` computes them, without scale.
        """
        rows, columns = self._open_pairs(candidates, centres, nearest, np.float32)
        if len(rows) > _HITS_WORTH_FLOAT64 * len(nearest) and np.float32 not in self.exact:
            finer = [self.place(placed.rows, np.float64) for placed in (candidates, centres)]
            rows, columns = self._open_pairs(finer[0], finer[1], nearest, np.float64)
        for pairs in blocks(len(rows), self.rows_at_once):
            i, k = rows[pairs], columns[pairs]
            np.minimum.at(nearest, i, squared_distances(candidates.rows[i], centres.rows[k]))

    def _open_pairs(
        self, candidates: Placed, centres: Placed, nearest: Doubles, precision: type
    ) -> tuple[Indices, Indices]:
        """Return all pairs (i, k) where centre k may be the nearest one of i, and nearer than nearest[i]."""
        products, offsets = self.lower_bounds(candidates, centres)
        least = products.argmin(axis=1)
        lowest = products[np.arange(len(products)), least].astype(np.float64)
        below = np.where(nearest > 0, nearest * self.scale**2 - offsets, -np.inf)
        rows = np.flatnonzero(lowest < below)
        if precision in self.exact:
            return rows, least[rows]
        limits = np.minimum(below, lowest + self.uncertainty(candidates, centres))[rows]
        hits, columns = np.nonzero(products[rows] <= np.nextafter(limits.astype(precision), np.inf)[:, None])
        return rows[hits], columns

    def _underflow(self, precision: type) -> float:
        return 0.0 if precision in self.exact else (len(self.origin) + 8) * float(np.finfo(precision).tiny)


def _largest(array: Features) -> float:
    return max(float(array.max()), -float(array.min())) if len(array) else 0.0


def _exact_precisions(arrays: tuple[Features, ...], largest: float, rows_at_once: int) -> frozenset[type]:
    """Return the precisions whose significand holds every product and sum over `arrays`, taken as integers.

    This holds for small integers, bits and quantised features, which have many ties. There, products are
    exact and no tie needs to be resolved.
    """
    width = arrays[0].shape[1]
    exact: frozenset[type] = frozenset({np.float32, np.float64})
    grain = np.inf
    for array in arrays:
        for block in blocks(len(array), rows_at_once):
            grain = min(grain, _grain(array[block]))
            steps = 2 * largest / grain
            exact = frozenset(p for p in exact if 4 * width * steps**2 <= 2.0 ** (np.finfo(p).nmant + 1))
            if not exact:
                return exact
    return exact


def _grain(rows: Features) -> float:
    """Return the largest power of two that divides every element; infinity if all elements are 0."""
    significand, exponent = np.frexp(rows[rows != 0])
    if not len(significand):
        return np.inf
    whole = (significand * 2**24).astype(np.int32)
    trailing = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return float(2.0 ** int((exponent - 24 + trailing).min()))
