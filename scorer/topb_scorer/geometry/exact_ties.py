"""Resolve ties with exact squared distances, computed as integers where float64 is not precise enough.

Every float32 number is an integer multiple of 2^−149, so a squared distance is an integer multiple of 2^−298.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.euclidean import Doubles, Features, Frame, Indices

_UNIT = 2.0**149
"""The product of any float32 number and this unit is an integer that float64 represents exactly."""


def near_ties(width: int) -> float:
    """Return the largest relative difference between results of `squared_distances` for equal distances."""
    return 4 * (width + 4) * 2.0**-53


def exact_squared_distance(x: Features, y: Features) -> int:
    """Return ‖x − y‖² · 2^298 for two rows, float32 (D,), as an exact integer."""
    pairs = zip((x.astype(np.float64) * _UNIT).tolist(), (y.astype(np.float64) * _UNIT).tolist(), strict=True)
    return sum((int(a) - int(b)) ** 2 for a, b in pairs)


class ExactDistances:
    """Computes exact squared distances to the nearest centre for the few candidates that are tied.

    Results are cached, so that a candidate that remains tied is only compared with new centres.
    """

    def __init__(self, frame: Frame, centre_rows: Callable[[int, int], Features], check: Check) -> None:
        self._frame = frame
        self._centre_rows = centre_rows
        self._check = check
        self._found: dict[int, tuple[int, int]] = {}

    def farthest(self, candidates: Indices, rows: Features, nearest: Doubles, centres: int) -> int:
        """Return the position of the candidate that is farthest from its nearest centre.

        Ties go to the first candidate.

        Args:
            candidates: int64 (n,), indices into the pool, ascending.
            rows: float32 (n, D), the features of the candidates.
            nearest: float64 (n,), results of `squared_distances` to the nearest centres.
            centres: the number of centres, at least 1.
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
        for start in checked(range(first, last, self._frame.rows_at_once), self._check):
            rows_of_centres = self._centre_rows(start, min(start + self._frame.rows_at_once, last))
            centres = self._frame.place(rows_of_centres, np.float64)
            products, offsets = self._frame.lower_bounds(placed, centres)
            hits = zip(*np.nonzero(products <= (reach - offsets)[:, None]), strict=True)
            for i, k in checked(hits, self._check):
                distance = exact_squared_distance(rows[i], centres.rows[k])
                known = found[int(candidates[i])]
                found[int(candidates[i])] = distance if known < 0 else min(known, distance)
        self._found.update({i: (last, distance) for i, distance in found.items()})
