"""Compute squared Euclidean distances: float32 products rule out most pairs, and float64 decides the rest.

The expansion ‖x − y‖² = ‖x‖² + ‖y‖² − 2x·y is as fast as a matrix product, but it suffers from cancellation:
for rows far from zero, float32 loses small distances completely. The expansion, minus a rigorous bound of its
rounding error, therefore only serves as a *lower bound*. The error bound is from Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., section 3.5: the error of a sum of n products is at most
γ_n Σ|xᵢyᵢ| with γ_n = nu / (1 − nu), in any order of summation. For pairs that the lower bound cannot rule
out, the distance is computed from differences in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked
from topb_scorer.errors import InvalidRequestError

Features = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

ROWS_AT_ONCE = 2048
"""Rows that are gathered and multiplied at once. At 512 dimensions they take 4 MiB and fit into the cache."""
_SAMPLE = 1024
_LARGEST_SCALE = 126
"""2^126 and 2^−126 are normal float32 numbers."""
HITS_WORTH_FLOAT64 = 8
"""With more open pairs per row than this, a float64 product is faster than float64 differences."""


def blocks(size: int, rows_at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Divide `size` rows into slices of at most `rows_at_once` rows."""
    return [slice(first, min(first + rows_at_once, size)) for first in range(0, size, rows_at_once)]


def check_features(pool: Features, labelled: Features, name: str = "pool") -> None:
    """Check that both arrays are finite float32, of shapes (N, D) and (L, D) with D ≥ 1.

    Args:
        pool: N rows.
        labelled: L rows.
        name: the name of the pool in error messages.

    Raises:
        InvalidRequestError: with reason FEATURES_SHAPE, FEATURES_DTYPE or FEATURES_NOT_FINITE.
    """
    _check(pool, name)
    _check(labelled, "labelled")
    if pool.shape[1] != labelled.shape[1]:
        raise InvalidRequestError(
            f"rows of the pool have {pool.shape[1]} features, but labelled rows have {labelled.shape[1]}; "
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
                f"row {row} of {name} is not finite; remove such rows before selecting",
                reason="FEATURES_NOT_FINITE",
                features=name,
                row=row,
            )


def squared_distances(x: Features, y: Features) -> Doubles:
    """Return ‖xᵢ − yᵢ‖², float64 (n,), with a relative error of at most (D + 4) · 2^−53.

    Args:
        x: float32 (n, D).
        y: float32 (n, D), or (D,) to compare all rows of `x` with the same row.
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
    """float64 (n,): ‖near‖², summed in the precision of `near`."""

    def take(self, positions: Indices | slice) -> Placed:
        """Return the rows at `positions`, which are int64 (m,) or a slice."""
        return Placed(self.rows[positions], self.near[positions], self.norms[positions])


@dataclass(frozen=True)
class Frame:
    """A shift and a scale of coordinates, in which products are computed.

    Coordinates in a frame are near zero, which reduces cancellation, and at most 4 in magnitude, so that
    squares do not overflow.
    """

    origin: Features
    """float32 (D,): the median of a sample of each column. Unlike the mean, it is insensitive to outliers."""
    scale: float
    """A power of two, so that multiplication by it is exact."""
    exact: frozenset[type] = frozenset()
    """The precisions in which products of these features have no rounding errors."""
    rows_at_once: int = ROWS_AT_ONCE
    """The number of rows that are gathered and multiplied at once. It does not affect distances."""

    @classmethod
    def around(cls, *arrays: Features, rows_at_once: int = ROWS_AT_ONCE) -> Frame:
        """Return a frame for finite `arrays`, each float32 (n, D). At least one array must have rows."""
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

    def around_middle_of(self, rows: Features) -> Frame:
        """Return this frame with its origin in the middle of `rows`, float32 (n, D), some of its rows."""
        return replace(self, origin=np.sort(rows, axis=0)[len(rows) // 2].copy())

    def slack(self, precision: type) -> float:
        """Return ε such that the error of ‖a‖² + ‖b‖² − 2a·b in `precision` is at most ε(‖a‖² + ‖b‖²).

        ε is the sum of 4u for placing both rows, γ_D for the norms, and 2γ_(D+1) for the product with a norm
        as an additional term.
        """
        if precision in self.exact:
            return 0.0
        return 1.01 * (3 * len(self.origin) + 16) * float(np.finfo(precision).eps) / 2

    def lower_bounds(self, candidates: Placed, centres: Placed) -> tuple[NDArray[np.floating], Doubles]:
        """Return lower bounds: products[i, k] + offsets[i] ≤ ‖candidateᵢ − centreₖ‖² · scale².

        The two terms are not added here: comparing each row of products with a threshold minus its offset
        saves two passes over the (n, m) array.

        Args:
            candidates: n rows.
            centres: m rows, placed in the same precision.

        Returns:
            products: (n, m), in the precision of the rows.
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
        # Some BLAS kernels set the invalid flag in lanes beyond the matrix. The factors are all valid.
        with np.errstate(invalid="ignore"):
            products = left @ right.T
        return products, candidates.norms * kept - self._underflow(precision)

    def uncertainty(self, candidates: Placed, centres: Placed) -> Doubles:
        """Return how much each candidate's squared distances can exceed their lower bounds, float64 (n,)."""
        precision = candidates.near.dtype.type
        norms = candidates.norms + centres.norms.max(initial=0.0)
        uncertain: Doubles = 2 * self.slack(precision) * norms + 2 * self._underflow(precision)
        return uncertain

    def nearer(self, candidates: Placed, centres: Placed, nearest: Doubles, check: Check) -> None:
        """Lower each value of `nearest` to the squared distance to the nearest centre if that is smaller.

        Args:
            candidates: n rows.
            centres: m rows.
            nearest: float64 (n,), unscaled squared distances; changed in place.
            check: called before each block of distances.
        """
        check()
        rows, columns = self._open_pairs(candidates, centres, nearest)
        for pairs in checked(blocks(len(rows), self.rows_at_once), check):
            i, k = rows[pairs], columns[pairs]
            np.minimum.at(nearest, i, squared_distances(candidates.rows[i], centres.rows[k]))

    def nearest_centre(self, candidates: Placed, centres: Placed, check: Check) -> Indices:
        """Return the index of the nearest centre of each candidate, int64 (n,). Ties go to the lowest index.

        Distances are compared in float64.

        Args:
            candidates: n rows.
            centres: m rows, m ≥ 1.
            check: called before each block of distances.
        """
        size = len(candidates.rows)
        rows, columns = self._open_pairs(candidates, centres, np.full(size, np.inf))
        squared = np.zeros(len(rows))
        unsure = np.flatnonzero(np.bincount(rows, minlength=size)[rows] > 1)
        for block in checked(blocks(len(unsure), self.rows_at_once), check):
            i, k = rows[unsure[block]], columns[unsure[block]]
            squared[unsure[block]] = squared_distances(candidates.rows[i], centres.rows[k])
        # In this order, the last pair of each row is the nearest one, and it is written last.
        order = np.lexsort((columns, squared, rows))[::-1]
        nearest = np.empty(size, np.int64)
        nearest[rows[order]] = columns[order]
        return nearest

    def _open_pairs(self, candidates: Placed, centres: Placed, nearest: Doubles) -> tuple[Indices, Indices]:
        """Return all pairs (i, k) for which centre k may be the nearest to i and nearer than nearest[i]."""
        precision = candidates.near.dtype.type
        uncertain = None if precision in self.exact else self.uncertainty(candidates, centres)
        bounds = self.lower_bounds(candidates, centres)
        rows, columns = open_pairs(*bounds, uncertain, nearest * self.scale**2)
        if precision is np.float64 or len(rows) <= HITS_WORTH_FLOAT64 * len(nearest):
            return rows, columns
        finer = [self.place(placed.rows, np.float64) for placed in (candidates, centres)]
        return self._open_pairs(finer[0], finer[1], nearest)

    def _underflow(self, precision: type) -> float:
        return 0.0 if precision in self.exact else (len(self.origin) + 8) * float(np.finfo(precision).tiny)


def open_pairs(
    products: NDArray[np.floating], offsets: Doubles, uncertain: Doubles | None, nearest: Doubles
) -> tuple[Indices, Indices]:
    """Return the pairs of which one can lower the distance from a candidate to its nearest centre.

    Args:
        products: float32 or float64 (n, m): products[i, k] + offsets[i] is a lower bound of the squared
            distance from candidate i to centre k.
        offsets: float64 (n,).
        uncertain: float64 (n,), how much the squared distances of a candidate can exceed their lower bounds;
            None if the lower bounds are the squared distances.
        nearest: float64 (n,), the squared distances to the nearest centres so far.

    Returns:
        int64 (p,) and int64 (p,): the candidates and the centres. If a centre is nearer to a candidate than
        `nearest`, the nearest one is among them.
    """
    least = products.argmin(axis=1)
    lowest = products[np.arange(len(products)), least].astype(np.float64)
    below = np.where(nearest > 0, nearest - offsets, -np.inf)
    rows = np.flatnonzero(lowest < below)
    if uncertain is None:
        return rows, least[rows]
    limits = np.minimum(below, lowest + uncertain)[rows]
    hits, columns = np.nonzero(products[rows] <= np.nextafter(limits.astype(products.dtype), np.inf)[:, None])
    return rows[hits], columns


def _largest(array: Features) -> float:
    return max(float(array.max()), -float(array.min())) if len(array) else 0.0


def _exact_precisions(arrays: tuple[Features, ...], largest: float, rows_at_once: int) -> frozenset[type]:
    """Return the precisions that represent every product and sum over `arrays` exactly.

    This is possible for small integers, bits and quantised features, which have many ties. With exact
    products, ties need not be resolved separately.
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
