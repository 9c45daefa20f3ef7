"""Find the rows of a small set that may be nearer to a new pick than to their nearest centre so far.

No such row is missed, because the search uses lower bounds of distances (`euclidean`).
"""

from __future__ import annotations

import numpy as np

from topb_scorer.geometry.euclidean import Doubles, Frame, Indices, Placed

FRONT_ROWS_AT_ONCE = 128
"""Rows of a front that are multiplied at once: enough for a fast matrix product."""
_PRODUCTS_AT_ONCE = 2**24
"""The maximum number of products in memory: 64 MiB of float32."""


class FrontProducts:
    """Caches products between rows of a front, computed in advance for rows that are likely picked next."""

    def __init__(self, frame: Frame, front: Placed, rows_at_once: int = FRONT_ROWS_AT_ONCE) -> None:
        self._frame = frame
        self._front = front
        size = len(front.rows)
        self._at_once = max(1, min(rows_at_once, _PRODUCTS_AT_ONCE // size, size))
        self._held: dict[int, int] = {}

    def maybe_nearer(self, row: int, nearest: Doubles, *, likely: Doubles) -> Indices:
        """Return the rows of the front whose squared distance to `row` may be smaller than `nearest`.

        Args:
            row: an index into the front.
            nearest: float64 (n,), squared distances. Rows with values of 0 or less are left out.
            likely: float64 (n,), higher for rows that are more likely to be passed as `row` next.

        Returns:
            int64 (m,), ascending.
        """
        if row not in self._held:
            self._hold(row, likely)
        position = self._held[row]
        limits = nearest * self._frame.scale**2 - self._offsets[position]
        return np.flatnonzero((self._products[position] < limits) & (nearest > 0))

    def _hold(self, row: int, likely: Doubles) -> None:
        next_rows = np.argpartition(likely, -self._at_once)[-self._at_once :]
        rows = np.unique(np.append(next_rows, row))
        self._products, self._offsets = self._frame.lower_bounds(self._front.take(rows), self._front)
        self._held = {int(held): position for position, held in enumerate(rows)}
