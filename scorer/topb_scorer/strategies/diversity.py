"""Diversity for any pointwise strategy: of its best-scored rows, those that lie far apart.

Keeping the oversampling · budget most informative samples, and then covering them, weighted by how
informative they are, is due to Zhdanov, Diverse mini-batch active learning (2019), who covers them by
k-means. Here they are covered by k-center greedy (`geometry.k_center`), so that the batch holds no
near-duplicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    """Pick the rows that lie far apart from the best-scored rows of a pointwise strategy."""

    needs = frozenset({"features"})

    pointwise: PointwiseStrategy
    diversify: int = option(
        "The number of candidates for each pick: the best-scored images.", kind=int, least=1, most=1e6
    )
    score_weight: float = option(
        "At 0, distance alone counts; up to 1, it is multiplied by a weight that falls with the score.",
        least=0.0,
        most=1.0,
        default=0.0,
    )
    min_distance: float = option(
        "No two picks lie within this Euclidean distance, in units of the features.",
        least=0.0,
        default=0.0,
    )

    @property
    def shortlist(self) -> Shortlist:
        """The best-scored rows: `diversify` for each row of the budget."""
        return Shortlist(self.pointwise, self.diversify)

    def select(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Return up to `budget` rows; scores are those of the pointwise strategy.

        K-center greedy starts from the labelled rows. Each pick is the farthest row from all that is labelled
        or picked, or with a score weight the one of largest distance × weight, where the weight falls
        linearly from 1 at the best score to 1 − score_weight at the worst of the shortlist. Ties go to the
        better score, then to the lower index. If nothing is labelled, the first pick is the best-scored row.

        No two picks, and no pick and labelled row, lie within `min_distance` of each other. If that leaves
        the batch short, the next best-scored rows become candidates.

        The measures compare the batch with the plain top-b, the `budget` best-scored rows: `mean_score`
        beside `mean_score_of_top` is what diversity costs. `radius` (the largest) and `mean_distance` (the
        mean) are distances of the shortlist to the nearest pick or labelled row; beside `radius_of_top` and
        `mean_distance_of_top` they are what diversity gains. `near_duplicates` counts the candidates that
        were passed over because they lie within `min_distance` of a pick or a labelled row.
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
                nearest=_nearest(frame, features[some], [labelled, features[picks]]),
                weights=_weights(scores[some], self.score_weight),
                budget=budget - len(picks),
                min_distance=self.min_distance,
            )
            picks += some[found].tolist()
            distances += found_distances
            near_duplicates += passed_over
        top = ranked[:budget]
        from_batch = np.sqrt(_nearest(frame, features[shortlist], [labelled, features[picks]]))
        from_top = np.sqrt(_nearest(frame, features[shortlist], [labelled, features[top]]))
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
    frame: Frame, rows: Features, nearest: Doubles, weights: Doubles, budget: int, min_distance: float
) -> tuple[list[int], list[float], int]:
    """Return picks, their distances, and how many rows are too near to another to be picked.

    Args:
        frame: around `rows`.
        rows: float32 (n, D), best score first.
        nearest: float64 (n,), squared distances to the nearest labelled row or earlier pick; lowered here.
        weights: float64 (n,), factors of the distances.
        budget: how many rows to pick at most.
        min_distance: a pick is farther than this from all labelled rows and earlier picks.
    """
    placed = frame.place(rows)
    products = FrontProducts(frame, placed)
    picks: list[int] = []
    distances: list[float] = []
    squared_weights = weights**2
    while len(picks) < budget:
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


def _nearest(frame: Frame, rows: Features, centres: list[Features]) -> Doubles:
    """Return float64 (n,): squared distances of `rows` to the nearest of all `centres`, infinity if none."""
    nearest = np.full(len(rows), np.inf)
    for block in blocks(len(rows)):
        placed = frame.place(rows[block])
        for some in centres:
            for part in blocks(len(some)):
                frame.nearer(placed, frame.place(some[part]), nearest[block])
    return nearest


def _weights(scores: Doubles, score_weight: float) -> Doubles:
    """Return float64 (n,) from 1 at the best score, which comes first, to 1 − score_weight at the worst."""
    span = scores[0] - scores[-1]
    if span == 0 or score_weight == 0:
        return np.ones(len(scores))
    # Never 0: its product with an infinite distance is not a number.
    weights: Doubles = np.maximum(1 - score_weight * (scores[0] - scores) / span, 2.0**-30)
    return weights


def _mean(values: Doubles) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
