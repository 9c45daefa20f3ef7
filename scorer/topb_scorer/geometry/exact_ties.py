"""What float64 cannot tell apart: squared distances between float32 rows as integers, which round nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topb_scorer.geometry.euclidean import ROWS_AT_ONCE, Doubles, Features, Frame, Indices, relative_error

_UNIT = 2.0**149
"""Times this, every float32 number is an integer, and float64 holds it exactly."""


def near_ties(width: int) -> float:
    """Returns how far apart, relatively, two computed squared distances may lie that are equal."""
    return 4 * relative_error(width)


def exact_squared_distance(x: Features, y: Features) -> int:
    """Returns ‖x − y‖² · 2^298 of two float32 (D,) rows, exactly."""
    pairs = zip((x.astype(np.float64) * _UNIT).tolist(), (y.astype(np.float64) * _UNIT).tolist(), strict=True)
    return sum((int(a) - int(b)) ** 2 for a, b in pairs)


class ExactDistances:
    """Exact squared distances to the nearest centre, for the few candidates that need one.

    What was found is kept, so that a candidate which stays tied from pick to pick is only held against new
    centres.
    """

    def __init__(self, frame: Frame, centre_rows: Callable[[int, int], Features]) -> None:
        self._frame = frame
        self._centre_rows = centre_rows
        self._found: dict[int, tuple[int, int]] = {}

    def farthest(self, candidates: Indices, rows: Features, nearest: Doubles, centres: int) -> int:
        """Returns the position in `candidates` of the one farthest from its nearest centre; of equals the
        first.

        Args:
            candidates: (n,) which rows of the pool these are, ascending.
            rows: float32 (n, D).
            nearest: float64 (n,) their squared distances to the nearest centre, as `squared_distances`
                computes them.
            centres: how many centres there are, at least one.
        """
        distinct = np.sort(np.unique(rows, axis=0, return_index=True)[1])
        if len(distinct) == 1:
            return 0
        since = np.array([self._found.get(int(candidates[i]), (0, 0))[0] for i in distinct])
        for first in np.unique(since):
            behind = distinct[since == first]
            self._hold_against(candidates[behind], rows[behind], nearest[behind], int(first), centres)
        return int(max(distinct, key=lambda i: (self._found[int(candidates[i])][1], -i)))

    def _hold_against(
        self, candidates: Indices, rows: Features, nearest: Doubles, first: int, last: int
    ) -> None:
        found = {int(i): self._found.get(int(i), (0, -1))[1] for i in candidates}
        reach = nearest * (1 + near_ties(rows.shape[1])) * self._frame.scale**2
        placed = self._frame.place(rows, np.float64)
        for start in range(first, last, ROWS_AT_ONCE):
            centres = self._frame.place(self._centre_rows(start, min(start + ROWS_AT_ONCE, last)), np.float64)
            products, offsets = self._frame.lower_bounds(placed, centres)
            for i, k in zip(*np.nonzero(products <= (reach - offsets)[:, None]), strict=True):
                distance = exact_squared_distance(rows[i], centres.rows[k])
                known = found[int(candidates[i])]
                found[int(candidates[i])] = distance if known < 0 else min(known, distance)
        self._found.update({i: (last, distance) for i, distance in found.items()})
