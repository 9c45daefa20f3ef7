"""Exact k-center greedy: repeatedly pick the point that is farthest from all labelled rows and earlier picks.

Gonzalez, Clustering to minimize the maximum intercluster distance (1985). Core-set uses it to choose what to
label: Sener and Savarese, Active learning for convolutional neural networks (ICLR 2018), algorithm 1. The
radius of the batch is at most twice the smallest possible radius.

The textbook loop computes b·N distances. This implementation computes only a few of them, and picks the same
points:

* Distances to the nearest centre never increase, so an outdated distance is an upper bound. A point is
  compared with new centres only when its bound is among the largest.
* Points are updated in blocks, as matrix products, which is ten times faster than a pass over the pool for
  each pick. The updated points that are farther than the bound of any other point form the *front*. As long
  as the farthest point of the front is beyond that bound, it is the farthest of all points, and no other
  point is examined.
* float32 products only rule out pairs (`euclidean`). Distances are compared in float64, and as integers where
  float64 cannot distinguish them (`exact_ties`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.errors import InvalidRequestError
from topb_scorer.geometry.euclidean import (
    ROWS_AT_ONCE,
    Doubles,
    Features,
    Frame,
    Indices,
    blocks,
    check_features,
    squared_distances,
)
from topb_scorer.geometry.exact_ties import ExactDistances, near_ties
from topb_scorer.geometry.front_products import FRONT_ROWS_AT_ONCE, FrontProducts
from topb_scorer.geometry.nearest_labelled import (
    FEWEST_SEARCHED,
    MakeSearch,
    check_search_device,
    faiss_search,
    upper_bounds,
)


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of blocks. They affect the running time and memory, but not the picks.

    On features of CIFAR-10 (50,000 × 512), starting from a tenth of them or from one point, halving or
    doubling any of these sizes increased the running time by 0 to 20 %.
    """

    rows_at_once: int = ROWS_AT_ONCE
    """Rows that are gathered and multiplied at once."""
    few_centres: int = 128
    """With fewer centres than this, a separate matrix product is not worthwhile."""
    fewest_updated: int = 512
    """The smallest number of rows that are updated together."""
    few_picks: int = 64
    """After fewer picks than this, twice as many rows are updated together."""
    many_picks: int = 256
    """After more picks than this, half as many rows are updated together."""
    largest_front: int = 8192
    """The maximum number of rows in a front. At 512 dimensions, the default takes 32 MiB."""
    front_rows_at_once: int = FRONT_ROWS_AT_ONCE
    """Rows of a front that are multiplied with the whole front at once."""
    fewest_searched: int = FEWEST_SEARCHED
    """With fewer labelled rows than this, no search for near labelled rows is made at the start."""


@dataclass(frozen=True)
class KCenterResult:
    """The picks of k-center greedy."""

    indices: Indices
    """int64 (b,): rows of the pool, in pick order."""
    radii: Doubles
    """float64 (b,): Euclidean distance of each pick to its nearest centre when it was picked, in units of the
    features. It is infinite for the first pick if nothing is labelled, and never increases. Where it flattens
    out, further picks add little coverage."""
    approximate: bool = False
    """Whether the picks come from `k_center_greedy_in_parts` and may differ from the exact greedy picks."""


def k_center_greedy(
    pool: Features,
    labelled: Features,
    budget: int,
    *,
    seed: int = 0,
    device: str = "cpu",
    make_search: MakeSearch = faiss_search,
    sizes: BlockSizes = BlockSizes(),
    check: Check = never_cancelled,
) -> KCenterResult:
    """Return the `budget` rows of `pool` that k-center greedy picks, starting from `labelled`.

    Each pick is the farthest point as in exact arithmetic on the float32 features. Ties go to the lowest
    index. When one of several duplicates is picked, the others are at distance 0. They are picked only when
    all remaining points are at distance 0, lowest index first. If nothing is labelled, the first pick is
    drawn with `seed`; otherwise `seed` has no effect.

    The features are read but never copied, so they may be memory-mapped. In addition, about 60 bytes per row
    of the pool and a few blocks of rows are held in memory. More memory is needed only if more than a few
    thousand points are tied for the farthest and are not small integers.

    Args:
        pool: float32 (N, D), finite.
        labelled: float32 (L, D), finite; L may be 0.
        budget: the number of rows to pick, 0 to N.
        seed: the seed for drawing the first pick if L is 0.
        device: the device on which to search for near labelled rows, `cpu` or `cuda:<index>`. It does not
            affect the picks.
        make_search: a function that returns this search. It does not affect the picks.
        sizes: sizes of blocks. They do not affect the picks.
        check: called before each pick and each block of distances.

    Raises:
        DeviceError: with reason DEVICE_UNKNOWN or DEVICE_UNAVAILABLE.
        InvalidRequestError: with reason FEATURES_SHAPE, FEATURES_DTYPE, FEATURES_NOT_FINITE, BUDGET_NEGATIVE
            or BUDGET_TOO_LARGE.
    """
    check_features(pool, labelled)
    check_budget(budget, len(pool))
    check_search_device(device)
    if budget == 0:
        return KCenterResult(np.empty(0, np.int64), np.empty(0))
    frame = Frame.around(pool, labelled, rows_at_once=sizes.rows_at_once)
    cover = _Cover(pool, labelled, frame, sizes, check)
    if len(labelled):
        cover.nearest[:] = upper_bounds(
            pool,
            labelled,
            frame,
            device=device,
            make_search=make_search,
            fewest_searched=sizes.fewest_searched,
            check=check,
        )
    else:
        cover.pick(int(np.random.default_rng(seed).integers(len(pool))), np.inf)
    if np.isinf(cover.nearest.max()):
        cover.update(np.flatnonzero(cover.nearest >= 0))
    width = sizes.fewest_updated
    while len(cover.picks) < budget:
        before = len(cover.picks)
        _advance(cover, min(width, len(pool)), budget)
        picked = len(cover.picks) - before
        if picked < sizes.few_picks:
            width = min(2 * width, len(pool))
        elif picked > sizes.many_picks:
            width = max(width // 2, sizes.fewest_updated)
    return KCenterResult(np.array(cover.picks), np.sqrt(np.minimum.accumulate(cover.squared_radii)))


def check_budget(budget: int, size: int) -> None:
    """Check that `budget` rows can be picked from `size` rows.

    Raises:
        InvalidRequestError: with reason BUDGET_NEGATIVE or BUDGET_TOO_LARGE.
    """
    if budget < 0:
        raise InvalidRequestError(
            f"the budget is {budget}; expected 0 or more", reason="BUDGET_NEGATIVE", budget=budget
        )
    if budget > size:
        raise InvalidRequestError(
            f"the budget is {budget}, but the pool has only {size} rows; expected at most {size}",
            reason="BUDGET_TOO_LARGE",
            budget=budget,
            pool=size,
        )


@dataclass
class _Cover:
    """The distances of all rows to their nearest centres. Centres are the labelled rows, then the picks."""

    pool: Features
    labelled: Features
    frame: Frame
    sizes: BlockSizes
    check: Check
    picks: list[int] = field(default_factory=list)
    squared_radii: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nearest: Doubles = np.full(len(self.pool), np.inf)
        """(N,): upper bounds of the squared distances to the nearest centres; −1 for picks."""
        self.seen = np.zeros(len(self.pool), np.int32)
        """(N,): how many centres each row has been compared with, starting with the first."""
        self.exact = ExactDistances(self.frame, self.centre_rows, self.check)
        self.ties = 0.0 if np.float64 in self.frame.exact else near_ties(self.pool.shape[1])

    @property
    def centres(self) -> int:
        return len(self.labelled) + len(self.picks)

    def centre_rows(self, first: int, last: int) -> Features:
        """Return the features of centres, float32 (last − first, D)."""
        known = len(self.labelled)
        if last <= known:
            return self.labelled[first:last]
        picks = self.picks[max(first - known, 0) : max(last - known, 0)]
        return np.concatenate([self.labelled[first:last], self.pool[picks]])

    def pick(self, row: int, squared_radius: float) -> None:
        self.picks.append(row)
        self.squared_radii.append(squared_radius)
        self.nearest[row] = -1.0

    def update(self, rows: Indices) -> None:
        """Compare `rows` with all centres with which they have not been compared yet."""
        rows = rows[self.seen[rows] < self.centres]
        rows = rows[np.lexsort((rows, self.seen[rows]))]
        for block in blocks(len(rows), self.sizes.rows_at_once):
            self._compare(rows[block])

    def _compare(self, rows: Indices) -> None:
        """Compare `rows` with all new centres. The rows must be sorted by `seen`."""
        groups = [(part, self.frame.place(self.pool[rows[part]])) for part in self._groups(self.seen[rows])]
        # Initial bounds are not distances to one of the centres counted in `seen`, so they are not reused.
        nearest = np.where(self.seen[rows] > 0, self.nearest[rows], np.inf)
        for start in range(int(self.seen[rows[0]]), self.centres, self.sizes.rows_at_once):
            end = min(start + self.sizes.rows_at_once, self.centres)
            centres = self.frame.place(self.centre_rows(start, end))
            for part, candidates in groups:
                first = max(int(self.seen[rows[part.start]]), start)
                if first < end:
                    some = centres.take(slice(first - start, None))
                    self.frame.nearer(candidates, some, nearest[part], self.check)
        self.nearest[rows] = nearest
        self.seen[rows] = self.centres

    def _groups(self, seen: NDArray[np.int32]) -> list[slice]:
        """Divide rows into groups that are compared together. `seen` must be ascending.

        Rows of a group have been compared with similar numbers of centres. No row is compared with more than
        about twice as many centres as necessary, and each group has enough centres for a fast matrix product.
        """
        groups, first = [], 0
        while first < len(seen):
            missed = self.centres - seen[first]
            reach = seen[first] + missed // 2 + self.sizes.few_centres
            last = first + int(np.searchsorted(seen[first:], reach))
            groups.append(slice(first, last))
            first = last
        return groups


def _advance(cover: _Cover, width: int, budget: int) -> None:
    """Update the `width` rows with the largest bounds, and pick while no other row can be farther."""
    candidates, bound, rival = _farthest(cover.nearest, width)
    if cover.nearest[candidates].max() <= 0:
        for row in np.flatnonzero(cover.nearest == 0)[: budget - len(cover.picks)]:
            cover.pick(int(row), 0.0)
        return
    cover.update(candidates)
    front = candidates[cover.nearest[candidates] >= bound]
    if len(front) > cover.sizes.largest_front:
        front, bound, rival = _narrowed(cover, front, bound, rival)
    if len(front):
        _pick_from(cover, front, bound, rival, budget)


def _narrowed(cover: _Cover, front: Indices, bound: float, rival: int) -> tuple[Indices, float, int]:
    """Return the farthest rows of a front that is too large, with their new bound and rival.

    If so many rows may be tied that none of these rows is certain to be the farthest, return the whole front.
    """
    nearest = cover.nearest[front]
    kept, next_bound, left_out = _farthest(nearest, cover.sizes.largest_front)
    if cover.ties and nearest.max() <= next_bound * (1 + cover.ties):
        return front, bound, rival
    next_rival = int(front[left_out])
    return front[kept], next_bound, min(rival, next_rival) if next_bound == bound else next_rival


def _farthest(nearest: Doubles, width: int) -> tuple[Indices, float, int]:
    """Return the `width` rows with the largest bounds, ascending, the next bound, and the first row with it.

    Among rows with equal bounds, the first ones are returned.
    """
    if width == len(nearest):
        return np.flatnonzero(nearest >= 0), 0.0, len(nearest)
    least = np.partition(nearest, len(nearest) - width)[len(nearest) - width]
    above, level = np.flatnonzero(nearest > least), np.flatnonzero(nearest == least)
    taken = width - len(above)
    candidates = np.sort(np.concatenate([above, level[:taken]]))
    candidates = candidates[nearest[candidates] >= 0]
    if taken < len(level):
        return candidates, max(float(least), 0.0), int(level[taken])
    rest = np.where(nearest < least, nearest, -1.0)
    rival = int(rest.argmax())
    return candidates, max(float(rest[rival]), 0.0), rival


def _pick_from(cover: _Cover, front: Indices, bound: float, rival: int, budget: int) -> None:
    """Pick from `front` while its farthest row is farther than any other row can be.

    Args:
        cover: receives the picks.
        front: indices of rows whose distances are up to date, ascending.
        bound: an upper bound of the squared distances of all rows outside the front.
        rival: the first row outside the front whose squared distance may be `bound`.
        budget: the total number of picks to reach.
    """
    frame, tolerance = cover.frame, cover.ties
    placed = frame.place(cover.pool[front])
    products = FrontProducts(frame, placed, cover.sizes.front_rows_at_once)
    nearest = cover.nearest[front]
    while len(cover.picks) < budget:
        cover.check()
        winner = int(nearest.argmax())
        farthest = float(nearest[winner])
        surely = farthest > bound * (1 + tolerance)
        if farthest <= 0 or not (surely or (farthest == bound and tolerance == 0 and front[winner] < rival)):
            break
        tied = np.flatnonzero(nearest >= farthest * (1 - tolerance)) if tolerance else ()
        if len(tied) > 1:
            winner = int(
                tied[cover.exact.farthest(front[tied], placed.rows[tied], nearest[tied], cover.centres)]
            )
        cover.pick(int(front[winner]), float(nearest[winner]))
        nearest[winner] = -1.0
        near = products.maybe_nearer(winner, nearest, likely=nearest)
        nearest[near] = np.minimum(nearest[near], squared_distances(placed.rows[near], placed.rows[winner]))
    cover.nearest[front] = nearest
    cover.seen[front] = cover.centres
