"""Find all pairs of rows within a radius: float32 products decide most pairs, and float64 the rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.euclidean import (
    HITS_WORTH_FLOAT64,
    Features,
    Frame,
    Indices,
    Placed,
    blocks,
    squared_distances,
)

_SAMPLED_CENTRES = 256
_SAMPLED_ROWS = 2**14


class Balls:
    """Balls of one radius in a space of features."""

    def __init__(self, radius: float, frame: Frame, check: Check) -> None:
        """Define the balls.

        Args:
            radius: the Euclidean radius, in units of the features.
            frame: a frame around all rows that are compared.
            check: called before each block of distances.
        """
        self._radius = radius
        self._frame = frame
        self._check = check

    def inside(
        self, centres: Features, features: Features, rows: Indices
    ) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Yield slices of `rows`, and which of these rows are in the ball around each centre, bool (n, m).

        Args:
            centres: float32 (n, D).
            features: float32 (N, D).
            rows: int64 (R,), indices of features.
        """
        placed = self._frame.place(centres)
        for block in checked(blocks(len(rows)), self._check):
            yield block, self._inside(placed, self._frame.place(features[rows[block]]))

    def _inside(self, centres: Placed, rows: Placed) -> NDArray[np.bool_]:
        products, offsets = self._frame.lower_bounds(centres, rows)
        precision = products.dtype
        limits = (self._radius * self._frame.scale) ** 2 - offsets
        surely = limits - self._frame.uncertainty(centres, rows)
        inside = products < np.nextafter(surely.astype(precision), -np.inf)[:, None]
        unsure = products <= np.nextafter(limits.astype(precision), np.inf)[:, None]
        unsure ^= inside
        # Unlike np.nonzero for two dimensions, this is fast if few elements are true.
        i, k = np.divmod(np.flatnonzero(unsure), unsure.shape[1])
        if precision == np.float32 and len(i) > HITS_WORTH_FLOAT64 * len(products):
            return self._inside(*(self._frame.place(placed.rows, np.float64) for placed in (centres, rows)))
        for block in checked(blocks(len(i)), self._check):
            pairs = i[block], k[block]
            inside[pairs] = squared_distances(centres.rows[pairs[0]], rows.rows[pairs[1]]) <= self._radius**2
        return inside


def radius_of_balls(features: Features, share: float, *, seed: int, check: Check) -> float:
    """Return the radius at which half of the balls around rows hold a share of all rows.

    It is the median distance from 256 rows to the neighbour that has this share of up to 16,384 rows before
    it, but to the nearest one at least. All these rows are drawn at random. Distances are in float64.

    Args:
        features: float32 (N, D), N ≥ 1.
        share: from 0 to 1.
        seed: the seed for drawing the rows.
        check: called before each block of distances.
    """
    drawn = np.random.default_rng(seed).permutation(len(features))[:_SAMPLED_ROWS]
    rows = features[drawn]
    rank = min(max(1, round(share * len(rows))), len(rows) - 1)
    to_neighbour = []
    for centre in rows[:_SAMPLED_CENTRES]:
        squared = [squared_distances(rows[b], centre) for b in checked(blocks(len(rows)), check)]
        to_neighbour.append(np.partition(np.concatenate(squared), rank)[rank])
    return float(np.sqrt(np.quantile(to_neighbour, 0.5, method="lower")))
