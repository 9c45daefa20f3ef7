"""Find the most typical row of a cluster again and again, while the rows that were found are removed.

The typicality of a row is the inverse of the mean distance to its nearest neighbours in the cluster, of which
there are 20, or half of the cluster if that is fewer. Removing a row can only increase the mean distances of
the others. An outdated mean distance is therefore a lower bound, and only the few rows with the smallest
bounds are compared with the cluster again.

The first bounds of all rows come from one float32 product of the cluster with itself, in blocks. Equal rows
are treated as one row with several copies, so a cluster of duplicates takes no longer than one of few rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.euclidean import Doubles, Features, Frame, Indices, blocks, squared_distances

NEIGHBOURS = 20
_RESOLVED_TOGETHER = 64
_SAMPLE = 1024
_ROUNDING = 1e-9
"""A mean of rounded bounds may exceed the mean of the distances by a smaller fraction than this."""


class ClusterDensity:
    """The remaining rows of a cluster, with bounds of their mean distances. About 60 bytes a row are held."""

    def __init__(
        self, features: Features, members: Indices, groups: Indices, frame: Frame, check: Check
    ) -> None:
        """Start with all rows of a cluster.

        Args:
            features: float32 (N, D).
            members: int64 (n,), the rows of the cluster, ascending.
            groups: int64 (n,), a number for each of them; the same for equal rows.
            frame: a frame around `features`.
            check: called before each block of distances.
        """
        self._features = features
        self._check = check
        self._left = len(members)
        _, first, self._group, self._copies = np.unique(
            groups, return_index=True, return_inverse=True, return_counts=True
        )
        self._rows = members[first]  # (m,), one row of each group
        self._members = members[np.argsort(self._group, kind="stable")]  # (n,), group by group
        self._next = np.cumsum(self._copies) - self._copies  # (m,), positions in _members
        self._frame = frame.around_middle_of(features[self._rows[:: -(-len(first) // _SAMPLE)]])
        self._neighbours = 0
        self._spread = np.zeros(len(first))  # (m,), mean distances or lower bounds of them
        self._reach = np.full(len(first), -1.0)  # (m,), squared, to the last neighbour; −1 for bounds

    def take_most_typical(self) -> tuple[int, float]:
        """Remove the most typical row, and return it with its typicality. Ties go to the lowest row.

        The typicality of a row without neighbours is 0, and that of a row whose neighbours equal it is
        infinite.
        """
        neighbours = min(NEIGHBOURS, self._left // 2)
        if neighbours != self._neighbours:
            self._neighbours = neighbours
            self._bound_all()
        while True:
            held = self._copies > 0
            known = self._reach >= 0
            least = self._spread[held & known].min(initial=np.inf)
            unsure = np.flatnonzero(held & ~known & (self._spread <= least))
            if not len(unsure):
                break
            self._resolve(unsure[np.argsort(self._spread[unsure], kind="stable")[:_RESOLVED_TOGETHER]])
        tied = np.flatnonzero(held & (self._spread == least))
        winner = int(tied[self._members[self._next[tied]].argmin()])
        row = int(self._members[self._next[winner]])
        self._remove(winner)
        if not neighbours:
            return row, 0.0
        return row, float("inf") if least == 0 else 1 / float(least)

    def _remove(self, group: int) -> None:
        """Remove one copy. Rows that counted it among their neighbours are known no longer."""
        self._left -= 1
        self._copies[group] -= 1
        self._next[group] += 1
        known = np.flatnonzero(self._reach >= 0)
        squared = squared_distances(self._features[self._rows[known]], self._features[self._rows[group]])
        self._reach[known[squared <= self._reach[known]]] = -1.0

    def _bound_all(self) -> None:
        """Give all rows bounds for a new number of neighbours."""
        self._reach[:] = -1.0
        self._spread[:] = 0.0
        held = np.flatnonzero(self._copies)
        if self._neighbours == 0 or len(held) <= _RESOLVED_TOGETHER:
            return
        for block in blocks(len(held)):
            some = held[block]
            squared, copies = self._nearest(some, np.float32)
            self._spread[some] = self._means(squared, copies) * (1 - _ROUNDING)

    def _resolve(self, some: Indices) -> None:
        """Compute the mean distances of some groups."""
        squared, copies = self._nearest(some, np.float64)
        self._spread[some] = self._means(squared, copies)
        self._reach[some] = squared.max(axis=1, initial=0.0, where=self._counted(copies) > 0)

    def _counted(self, copies: Indices) -> Indices:
        """Return how many of the copies are among the nearest neighbours, int64 (q, k)."""
        before = np.cumsum(copies, axis=1) - copies
        counted: Indices = np.clip(self._neighbours - before, 0, copies)
        return counted

    def _means(self, squared: Doubles, copies: Indices) -> Doubles:
        """Return the mean distances to the nearest neighbours, float64 (q,)."""
        counted = self._counted(copies)
        distances = np.sqrt(np.where(counted > 0, squared, 0.0))
        means: Doubles = np.einsum("ij,ij->i", distances, counted.astype(np.float64))
        means /= max(self._neighbours, 1)
        return means

    def _nearest(self, some: Indices, precision: type) -> tuple[Doubles, Indices]:
        """Return squared distances to the nearest groups, ascending, and the copies of these groups.

        In float32 they are lower bounds, and in float64 they are exact.

        Args:
            some: int64 (q,), groups.
            precision: the precision of the products.

        Returns:
            squared: float64 (q, k).
            copies: int64 (q, k), 0 where there is no further group.
        """
        frame = self._frame
        queries = frame.place(self._features[self._rows[some]], precision)
        squared = np.full((len(some), self._neighbours), np.inf)
        copies = np.zeros((len(some), self._neighbours), np.int64)
        for block in checked(blocks(len(self._rows)), self._check):
            others = frame.place(self._features[self._rows[block]], precision)
            products, offsets = frame.lower_bounds(queries, others)
            self._hide_removed(products, some, block)
            kept = _smallest(products, self._neighbours)
            if precision is np.float64:
                limits = np.take_along_axis(products, kept, 1).max(axis=1, initial=-np.inf)
                limits += frame.uncertainty(queries, others)
                # A group that is farther than all the neighbours so far is not among the nearest.
                limits = np.minimum(limits, squared.max(axis=1, initial=0.0) * frame.scale**2 - offsets)
                new = self._distances(queries.rows, others.rows, products <= limits[:, None])
                self._hide_removed(new, some, block)
                kept = _smallest(new, self._neighbours)
                new = np.take_along_axis(new, kept, 1)
            else:
                new = np.take_along_axis(products, kept, 1).astype(np.float64) + offsets[:, None]
                new = np.maximum(new, 0.0) / frame.scale**2
            squared = np.concatenate([squared, new], axis=1)
            new_copies = self._copies[block][kept] - (kept + block.start == some[:, None])
            copies = np.concatenate([copies, new_copies], axis=1)
            order = np.argsort(squared, axis=1, kind="stable")[:, : self._neighbours]
            squared, copies = (np.take_along_axis(array, order, 1) for array in (squared, copies))
        copies[np.isinf(squared)] = 0
        return squared, copies

    def _hide_removed(self, values: NDArray[np.floating], some: Indices, block: slice) -> None:
        """Make the distances infinite to groups without copies, and from single rows to themselves."""
        values[:, self._copies[block] == 0] = np.inf
        alone = np.flatnonzero((some >= block.start) & (some < block.stop) & (self._copies[some] == 1))
        values[alone, some[alone] - block.start] = np.inf

    def _distances(self, rows: Features, others: Features, wanted: NDArray[np.bool_]) -> Doubles:
        """Return the squared distances of the wanted pairs, float64 (q, m), and infinity for the rest."""
        found = np.full(wanted.shape, np.inf)
        i, k = np.nonzero(wanted)
        for block in checked(blocks(len(i)), self._check):
            pairs = i[block], k[block]
            found[pairs] = squared_distances(rows[pairs[0]], others[pairs[1]])
        return found


def _smallest(values: NDArray[np.floating], count: int) -> Indices:
    """Return the columns of the `count` smallest values of each row, in any order."""
    if count >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, count, axis=1)[:, :count]
