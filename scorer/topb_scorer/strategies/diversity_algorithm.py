"""Diversity for any score: of the best-scored candidates, those that lie far apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import InvalidRequestError
from topb_scorer.geometry.euclidean import (
    ROWS_AT_ONCE,
    Doubles,
    Features,
    Frame,
    Indices,
    check_features,
    check_same_width,
    squared_distances,
)
from topb_scorer.geometry.front_products import FrontProducts
from topb_scorer.geometry.k_center import check_budget


@dataclass(frozen=True)
class DiverseBatch:
    """A diverse batch, and what it costs and gains beside the plain top-b, the `budget` best-scored rows."""

    indices: Indices
    """int64 (n,): rows of the pool, in pick order. Fewer than the budget only where all else is near
    these or a labelled row."""
    distances: Doubles
    """float64 (n,): how far each was from the nearest labelled row or earlier pick; infinite from none."""
    mean_score: float
    """Of the batch."""
    mean_score_of_top: float
    """Of the plain top-b: what is missing from it in `mean_score` is the price."""
    radius: float
    """How far a candidate lies from the nearest of the batch and the labelled rows, at most."""
    radius_of_top: float
    """The same of the plain top-b: what `radius` falls short of it is the gain."""
    mean_distance: float
    """How far a candidate lies from the nearest of the batch and the labelled rows, on average."""
    mean_distance_of_top: float
    """The same of the plain top-b."""
    near_duplicates: int
    """Candidates that were not picked and lie within `min_distance` of a pick or a labelled row."""


def diversify(
    *,
    scores: NDArray[np.floating],
    features: Features,
    labelled: Features,
    budget: int,
    oversampling: int = 5,
    score_weight: float = 0.0,
    min_distance: float = 0.0,
) -> DiverseBatch:
    """Returns up to `budget` of the best-scored rows, picked to lie far from each other and from what is
    labelled.

    The candidates are the oversampling · budget best-scored rows, equal scores by lowest index. Of them
    k-center greedy (`k_center`) picks the farthest again and again; or, weighted, the one of largest distance
    × weight, where the weight falls in a straight line from 1 at the best score to 1 − score_weight at the
    worst candidate's. Of equals the better-scored is picked. Where nothing is labelled the first pick is the
    best-scored row.

    No two picks, and no pick and a labelled row, are within `min_distance` of each other: at 0, exact
    duplicates. Where so many candidates are that the batch stays short, the next best-scored rows become
    candidates.

    Keeping the oversampling · budget most informative samples and then covering them, weighted by how
    informative they are, is due to Zhdanov, Diverse mini-batch active learning (2019), there with k-means.

    Args:
        scores: floating (N,), finite: higher is picked first.
        features: float32 (N, D), finite.
        labelled: float32 (L, D), finite; L may be 0.
        budget: how many rows to pick, 0 to N.
        oversampling: candidates a pick, at least 1; at 1 the batch is the plain top-b, near-duplicates apart.
        score_weight: 0 to 1.
        min_distance: Euclidean, in units of the features, 0 or more.

    Raises:
        InvalidRequestError: with reason SCORES_SHAPE, SCORES_NOT_FINITE, OPTION_OUT_OF_RANGE, or as
            `k_center.k_center_greedy`.
    """
    check_features(features, "features")
    check_features(labelled, "labelled")
    check_same_width(features, labelled)
    check_budget(budget, len(features))
    _check_scores(scores, len(features))
    _check_options(oversampling, score_weight, min_distance)
    ranked = np.argsort(-scores, kind="stable")
    first_candidates = ranked[: oversampling * budget]
    frame = Frame.around(features, labelled)
    picks: list[int] = []
    distances: list[float] = []
    near_duplicates = 0
    for first in range(0, len(ranked), max(1, len(first_candidates))):
        if len(picks) == budget:
            break
        candidates = ranked[first : first + len(first_candidates)]
        rows = features[candidates]
        nearest = _nearest(frame, rows, [labelled, features[picks]])
        weights = _weights(scores[candidates], score_weight)
        found, found_distances, passed_over = _farthest_apart(
            frame, rows, nearest, weights, budget - len(picks), min_distance
        )
        picks += candidates[found].tolist()
        distances += found_distances
        near_duplicates += passed_over
    rows = features[first_candidates]
    of_batch = np.sqrt(_nearest(frame, rows, [labelled, features[picks]]))
    of_top = np.sqrt(_nearest(frame, rows, [labelled, features[ranked[:budget]]]))
    return DiverseBatch(
        indices=np.array(picks, np.int64),
        distances=np.array(distances),
        mean_score=_mean(scores[picks]),
        mean_score_of_top=_mean(scores[ranked[:budget]]),
        radius=float(of_batch.max(initial=0.0)),
        radius_of_top=float(of_top.max(initial=0.0)),
        mean_distance=_mean(of_batch),
        mean_distance_of_top=_mean(of_top),
        near_duplicates=near_duplicates,
    )


def _farthest_apart(
    frame: Frame, rows: Features, nearest: Doubles, weights: Doubles, budget: int, min_distance: float
) -> tuple[list[int], list[float], int]:
    """Returns picks, their distances, and how many rows are too near to any to be picked.

    Args:
        frame: around `rows`.
        rows: float32 (n, D), best score first.
        nearest: float64 (n,) squared distances to what was chosen before.
        weights: float64 (n,) of the distances.
        budget: picks at most.
        min_distance: no pick is this near to what was chosen before it.
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
    """Returns float64 (n,): squared distances of `rows` to the nearest of `centres`; infinity to none."""
    nearest = np.full(len(rows), np.inf)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        placed = frame.place(rows[block])
        for some in centres:
            for start in range(0, len(some), ROWS_AT_ONCE):
                frame.nearer(placed, frame.place(some[start : start + ROWS_AT_ONCE]), nearest[block])
    return nearest


def _weights(scores: NDArray[np.floating], score_weight: float) -> Doubles:
    falling = scores.astype(np.float64)
    span = falling[0] - falling[-1]
    if span == 0 or score_weight == 0:
        return np.ones(len(scores))
    # Never 0, which times an infinite distance is nothing.
    weights: Doubles = np.maximum(1 - score_weight * (falling[0] - falling) / span, 2.0**-30)
    return weights


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def _check_scores(scores: NDArray[np.floating], size: int) -> None:
    if scores.shape != (size,) or scores.dtype.kind != "f":
        raise InvalidRequestError(
            f"scores are {scores.dtype} of shape {scores.shape}; expected one float for each of {size}",
            reason="SCORES_SHAPE",
            shape=scores.shape,
        )
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores)))
        raise InvalidRequestError(
            f"the score of row {row} is {scores[row]}; leave such rows out before selecting",
            reason="SCORES_NOT_FINITE",
            row=row,
        )


def _check_options(oversampling: int, score_weight: float, min_distance: float) -> None:
    for name, value, fits, expected in [
        ("oversampling", oversampling, oversampling >= 1, "1 or more"),
        ("score_weight", score_weight, 0 <= score_weight <= 1, "between 0 and 1"),
        ("min_distance", min_distance, 0 <= min_distance < np.inf, "finite, and 0 or more"),
    ]:
        if not fits:
            raise InvalidRequestError(
                f"{name} is {value}; expected {expected}",
                reason="OPTION_OUT_OF_RANGE",
                option=name,
                value=value,
            )
