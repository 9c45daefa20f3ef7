"""Diversify a pointwise strategy: among its best-scored rows, pick rows that are far apart.

Zhdanov, Diverse mini-batch active learning (2019), keeps the oversampling · budget most informative samples
and clusters them by k-means, weighted by informativeness. This module covers them by k-center greedy
(`geometry.k_center`) instead, so that the batch contains no near-duplicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.geometry.euclidean import Doubles, Features, Frame, blocks, squared_distances
from topb_scorer.geometry.front_products import FrontProducts
from topb_scorer.strategies.options import option
from topb_scorer.strategies.strategy import (
    PointwiseStrategy,
    SetBasedStrategy,
    SetBatch,
    SetCandidates,
    Shortlist,
    finite,
)


@dataclass(frozen=True)
class Diversified(SetBasedStrategy):
    """Pick rows that are far apart among the best-scored rows of a pointwise strategy."""

    needs = frozenset({"features"})

    pointwise: PointwiseStrategy
    diversify: int = option(
        "The number of candidates per pick. The candidates are the best-scored images.",
        kind=int,
        least=1,
        most=1e6,
    )
    score_weight: float = option(
        "How much the score counts besides the distance. At 0, only the distance counts.",
        least=0.0,
        most=1.0,
        default=0.0,
    )
    min_distance: float = option(
        "The distance between any two picks is larger than this: Euclidean, in units of the features.",
        least=0.0,
        default=0.0,
    )

    @property
    def shortlist(self) -> Shortlist:
        """The best-scored rows: `diversify` times the budget."""
        return Shortlist(self.pointwise, self.diversify)

    def working_bytes(self, candidates: int, labelled: int, width: int, budget: int) -> int:
        """Return the memory for a few numbers a row, and for the shortlist in the order of scores, twice."""
        return super().working_bytes(candidates, labelled, width, budget) + 8 * width * candidates

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return up to `budget` rows with the scores of the pointwise strategy.

        K-center greedy starts from the labelled rows. Each pick has the largest distance × weight, where the
        distance is to the nearest labelled or picked row, and the weight falls linearly from 1 at the best
        score to 1 − score_weight at the worst score of the shortlist. Ties go to the better score, then to
        the lower index. If nothing is labelled, the first pick is the best-scored row.

        Every pick is farther than `min_distance` from all labelled rows and all other picks. If this leaves
        fewer than `budget` picks, the next best-scored rows become candidates.

        The measures compare the batch with the top-b, the `budget` best-scored rows. `mean_score` versus
        `mean_score_of_top` is the cost of diversity. `radius` and `mean_distance` are the maximum and the
        mean distance from the rows of the shortlist to the nearest pick or labelled row. Compared with
        `radius_of_top` and `mean_distance_of_top`, they are the gain from diversity. `near_duplicates` counts
        the candidates that were not picked because a pick or a labelled row is within `min_distance`.
        """
        features, labelled, scores = candidates.features, candidates.labelled, candidates.scores
        ranked = np.argsort(-scores, kind="stable")
        shortlist = ranked[: self.diversify * budget]
        frame = Frame.around(features, labelled)
        picks: list[int] = []
        distances: list[float] = []
        near_duplicates = 0
        for block in blocks(len(ranked), len(shortlist)):
            if len(picks) == budget:
                break
            some = ranked[block]
            found, found_distances, passed_over = _farthest_apart(
                frame,
                features[some],
                nearest=_nearest(frame, features[some], [labelled, features[picks]], check),
                weights=_weights(scores[some], self.score_weight),
                budget=budget - len(picks),
                min_distance=self.min_distance,
                check=check,
            )
            picks += some[found].tolist()
            distances += found_distances
            near_duplicates += passed_over
        top = ranked[:budget]
        from_batch = np.sqrt(_nearest(frame, features[shortlist], [labelled, features[picks]], check))
        from_top = np.sqrt(_nearest(frame, features[shortlist], [labelled, features[top]], check))
        indices = np.array(picks, np.int64)
        return SetBatch(
            indices,
            scores[indices],
            finite(np.array(distances)),
            {
                "mean_score": _mean(scores[indices]),
                "mean_score_of_top": _mean(scores[top]),
                "radius": float(from_batch.max(initial=0.0)),
                "radius_of_top": float(from_top.max(initial=0.0)),
                "mean_distance": _mean(from_batch),
                "mean_distance_of_top": _mean(from_top),
                "near_duplicates": float(near_duplicates),
            },
        )


def _farthest_apart(
    frame: Frame,
    rows: Features,
    nearest: Doubles,
    weights: Doubles,
    budget: int,
    min_distance: float,
    check: Check,
) -> tuple[list[int], list[float], int]:
    """Return the picks, their distances, and the number of rows that are too near to a pick or labelled row.

    Args:
        frame: a frame around `rows`.
        rows: float32 (n, D), best score first.
        nearest: float64 (n,), squared distances to the nearest labelled row or pick; changed in place.
        weights: float64 (n,), factors by which the distances are multiplied.
        budget: the maximum number of picks.
        min_distance: every pick is farther than this from all labelled rows and other picks.
        check: called before each pick.
    """
    placed = frame.place(rows)
    products = FrontProducts(frame, placed)
    picks: list[int] = []
    distances: list[float] = []
    squared_weights = weights**2
    while len(picks) < budget:
        check()
        value = np.where(nearest > min_distance**2, nearest * squared_weights, -1.0)
        pick = int(value.argmax())
        if value[pick] < 0:
            break
        picks.append(pick)
        distances.append(float(nearest[pick]) ** 0.5)
        near = products.maybe_nearer(pick, nearest, likely=value)
        nearest[near] = np.minimum(nearest[near], squared_distances(rows[near], rows[pick]))
        nearest[pick] = -1.0
    return picks, distances, int(((nearest >= 0) & (nearest <= min_distance**2)).sum())


def _nearest(frame: Frame, rows: Features, centres: list[Features], check: Check) -> Doubles:
    """Return the squared distances of `rows` to the nearest centre, float64 (n,), or infinity without any."""
    nearest = np.full(len(rows), np.inf)
    for block in blocks(len(rows)):
        placed = frame.place(rows[block])
        for some in centres:
            for part in blocks(len(some)):
                frame.nearer(placed, frame.place(some[part]), nearest[block], check)
    return nearest


def _weights(scores: Doubles, score_weight: float) -> Doubles:
    """Return weights, float64 (n,), that fall from 1 at the best score to 1 − score_weight at the worst.

    Args:
        scores: float64 (n,), descending.
        score_weight: from 0 to 1.
    """
    span = scores[0] - scores[-1]
    if span == 0 or score_weight == 0:
        return np.ones(len(scores))
    # A weight must not be 0, because its product with an infinite distance would be NaN.
    weights: Doubles = np.maximum(1 - score_weight * (scores[0] - scores) / span, 2.0**-30)
    return weights


def _mean(values: Doubles) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
