"""ProbCover: cover as much of the pool as possible with balls of a fixed radius. Suited to small budgets.

Yehuda, Dekel, Hacohen and Weinshall, Active learning through a covering lens (NeurIPS 2022), algorithm 1. The
greedy picks cover at least 1 − 1/e times as many rows as the best possible batch (Nemhauser, Wolsey and
Fisher, 1978).

The paper takes the largest radius at which most balls contain a single class of a clustering. With predicted
classes, most of these balls contain little more than their own centre, because some rows of another class are
near anywhere. The default here follows from the budget instead: L + b balls that each hold 1 / (L + b) of the
pool could just cover it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.geometry.balls import Balls, radius_of_balls
from topb_scorer.geometry.counted_rows import CountedRows
from topb_scorer.geometry.distinct import distinct_rows
from topb_scorer.geometry.euclidean import Features, Frame, Indices, blocks
from topb_scorer.strategies.options import option
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates

_LARGEST_SHARE = 0.05


@dataclass(frozen=True)
class ProbCover(SetBasedStrategy):
    """Repeatedly pick the image that covers the most images that are not covered yet."""

    name = "prob_cover"
    needs = frozenset({"features"})

    radius: float | None = option(
        "The Euclidean radius of a ball, in units of the features. By default, half of the balls hold at "
        "least 1 / (labelled images + budget) of the pool, or 5 % if that is less.",
        least=0.0,
        default=None,
    )
    max_counted: int = 2**16
    """The maximum number of rows among which newly covered rows are counted. In a larger pool they are a
    random sample, so that the time grows linearly with the pool."""
    max_pairs: int = 2**27
    """The maximum number of pairs of a counted row and a row within the radius to hold in memory, at 4 bytes
    each: 512 MiB. Fewer rows are counted if there are more pairs."""

    def working_bytes(self, candidates: int, labelled: int, width: int, budget: int) -> int:
        """Return the memory for a few numbers a row, and for the pairs of rows within the radius."""
        pairs = min(self.max_pairs, candidates**2)
        return super().working_bytes(candidates, labelled, width, budget) + 4 * pairs

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return `budget` rows. The score of a pick is the number of rows that it newly covers.

        Ties go to the lowest index. Rows within the radius of a labelled row are covered from the start. When
        all rows are covered, the remaining rows with the lowest indices are picked with score 0.

        If the pool has too many rows or pairs to count them all, a pick is the row that covers most of a
        random sample. The measure `counted_rows` is the size of the sample, and `gain_error` is the standard
        error of the first gain that was estimated from it, in rows. Scores and `covered_share` are exact in
        any case. `ball_radius` is the radius, and `mean_ball` the mean number of rows in the ball around a
        counted row.
        """
        features, labelled = candidates.features, candidates.labelled
        size, random = len(features), np.random.default_rng(seed)
        radius = self.radius
        if radius is None:
            share = min(_LARGEST_SHARE, 1 / (len(labelled) + budget))
            radius = radius_of_balls(features, share, seed=seed, check=check)
        balls = Balls(radius, Frame.around(features, labelled), check)
        first, group = distinct_rows(features, check)
        rows, copies = np.sort(first), np.bincount(group)[np.argsort(first)]
        covered = covered_by(balls, labelled, features, np.zeros(size, np.bool_))[1]
        measures = {"ball_radius": radius}
        picks: Indices = np.empty(0, np.int64)
        gained: list[Indices] = []
        while len(picks) < budget and not covered.all():
            open_rows = random.permutation(np.flatnonzero(~covered[rows]))
            counted = CountedRows(
                balls, features, rows, copies, open_rows[: self.max_counted], self.max_pairs
            )
            if not len(picks):
                measures |= counted.measures(among=int((~covered).sum()))
            some = rows[counted.cover(budget - len(picks), check)]
            gains, covered = covered_by(balls, features[some], features, covered)
            picks = np.concatenate([picks, some])
            gained.append(gains)
        rest = np.setdiff1d(np.arange(size), picks)[: budget - len(picks)]
        scores = np.concatenate([*gained, np.zeros(len(rest), np.int64)]).astype(np.float64)
        measures["covered_share"] = int(covered.sum()) / size
        return SetBatch(np.concatenate([picks, rest]), scores, measures=measures)


def covered_by(
    balls: Balls, centres: Features, features: Features, covered: NDArray[np.bool_]
) -> tuple[Indices, NDArray[np.bool_]]:
    """Return how many rows each centre newly covers, int64 (n,), and which rows are covered, bool (N,).

    Args:
        balls: the balls around the centres.
        centres: float32 (n, D), in the order in which they cover.
        features: float32 (N, D).
        covered: bool (N,), the rows that are covered already.
    """
    covered = covered.copy()
    gains = np.zeros(len(centres), np.int64)
    for some in blocks(len(centres)):
        for block, inside in balls.inside(centres[some], features, np.arange(len(features))):
            inside &= ~covered[block]
            newly = inside.any(axis=0)
            gains[some] += np.bincount(inside.argmax(axis=0)[newly], minlength=len(inside))
            covered[block] |= newly
    return gains, covered
