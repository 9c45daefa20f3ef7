"""Pick the balls that cover most of some counted rows. All pairs of such a row and a centre are in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check
from topb_scorer.geometry.balls import Balls
from topb_scorer.geometry.euclidean import Features, Indices

_FIRST_AT_ONCE = 32
_MOST_AT_ONCE = 512
_PARTS = 16
"""Pairs are searched in parts. A part has about this fraction of the maximum number of pairs."""


class CountedRows:
    """Some rows of a pool, and the centres whose balls cover them."""

    def __init__(
        self,
        balls: Balls,
        features: Features,
        rows: Indices,
        copies: Indices,
        counted: Indices,
        max_pairs: int,
    ) -> None:
        """Find the pairs.

        Args:
            balls: the balls.
            features: float32 (N, D).
            rows: int64 (m,), the centres: distinct rows.
            copies: int64 (m,), how many rows of the pool equal each of them.
            counted: int64 (c,), positions in `rows`, c ≥ 1, in random order. The last ones are not counted if
                there are more than `max_pairs` pairs.
            max_pairs: the maximum number of pairs, which take 4 bytes each.
        """
        self._balls = balls
        self._features = features
        self._rows = rows
        self._copies = copies
        self._near: list[NDArray[np.int32]] = []
        self._gains = np.zeros(len(rows), np.int64)  # (m,), how many counted rows and copies each ball covers
        self._in_balls = 0
        pairs, at_once = 0, _FIRST_AT_ONCE
        while len(self._near) < len(counted):
            part = self._centres_of(counted[len(self._near) :][:at_once])
            pairs += sum(map(len, part))
            if pairs > max_pairs and self._near:
                break
            for row, near in zip(counted[len(self._near) :], part, strict=False):
                self._gains[near] += copies[row]
                self._in_balls += int(copies[row] * copies[near].sum())
            self._near += part
            mean = pairs // len(self._near) + 1
            at_once = min(_MOST_AT_ONCE, max(1, max_pairs // (_PARTS * mean)))
        self._counted = counted[: len(self._near)]

    def measures(self, *, among: int) -> dict[str, float]:
        """Return the mean size of a ball, and how exact the gains are if not all rows are counted.

        Args:
            among: the number of rows of the pool that the counted rows represent.
        """
        total = int(self._copies[self._counted].sum())
        measures = {"mean_ball": self._in_balls / total}
        if total < among:
            share = self._gains.max() / total
            error = among * (share * (1 - share) / len(self._counted)) ** 0.5
            measures |= {"counted_rows": float(total), "gain_error": float(error)}
        return measures

    def cover(self, budget: int, check: Check) -> Indices:
        """Return up to `budget` centres, as positions in `rows`, each of which covers most of what is left.

        There are fewer if all counted rows are covered. Ties go to the lowest position.
        """
        position = np.full(len(self._rows), -1)
        position[self._counted] = np.arange(len(self._counted))
        covered = np.zeros(len(self._counted), np.bool_)
        gains = self._gains.copy()
        picks: list[int] = []
        while len(picks) < budget:
            check()
            pick = int(gains.argmax())
            if gains[pick] <= 0:
                break
            picks.append(pick)
            newly = self._covered_by(pick, position, covered)
            covered[newly] = True
            for row in newly.tolist():
                gains[self._near[row]] -= self._copies[self._counted[row]]
        return np.array(picks, np.int64)

    def _covered_by(self, pick: int, position: Indices, covered: NDArray[np.bool_]) -> Indices:
        """Return which of the counted rows the pick newly covers, as positions in `_counted`."""
        near: Indices
        if position[pick] >= 0:
            near = position[self._near[position[pick]]]
            near = near[near >= 0]
            near = near[~covered[near]]
        else:
            left = np.flatnonzero(~covered)
            centre = self._features[self._rows[pick]][None]
            rows = self._rows[self._counted[left]]
            inside = [part[0] for _, part in self._balls.inside(centre, self._features, rows)]
            near = left[np.concatenate(inside)]
        return near

    def _centres_of(self, counted: Indices) -> list[NDArray[np.int32]]:
        """Return the positions of the centres in the ball around each of some counted rows, ascending."""
        found_rows, found_centres = [], []
        centres = self._features[self._rows[counted]]
        for block, inside in self._balls.inside(centres, self._features, self._rows):
            # Unlike np.nonzero for two dimensions, this is fast if few elements are true.
            i, k = np.divmod(np.flatnonzero(inside), inside.shape[1])
            found_rows.append(i.astype(np.int16))
            found_centres.append((k + block.start).astype(np.int32))
        of_row = np.concatenate(found_rows)
        ordered = np.concatenate(found_centres)[np.argsort(of_row, kind="stable")]
        ends = np.cumsum(np.bincount(of_row, minlength=len(counted)))
        return np.split(ordered, ends[:-1])
