"""TypiClust: the most typical rows of the largest clusters that hold nothing labelled yet; for small budgets.

Hacohen, Dekel and Weinshall, Active learning on a budget: opposite strategies suit high and low budgets (ICML
2022), algorithm 1 and section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

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
from topb_scorer.geometry.k_center import check_budget

_MOST_CLUSTERS = 500
_NEIGHBOURS = 20
_SMALLEST_CLUSTER = 5
_ITERATIONS = 20
_SAMPLED_PER_CLUSTER = 256


@dataclass(frozen=True)
class TypiClustBatch:
    """What TypiClust picked."""

    indices: Indices
    """int64 (b,): rows of the pool, in pick order."""
    typicality: Doubles
    """float64 (b,): 1 / mean distance to the nearest rows of its cluster that were not picked yet; infinite
    among duplicates, 0 for a row that was left alone."""
    clusters: Indices
    """int64 (b,): the cluster that each was picked from."""


def typiclust(*, features: Features, labelled: Features, budget: int, seed: int = 0) -> TypiClustBatch:
    """Returns `budget` rows: in turn from each cluster its most typical one.

    Pool and labelled rows are clustered together by k-means into L + b clusters, 500 at most. Clusters come
    in order of how few labelled rows they hold, then of how many rows (then of number); those of fewer than 5
    rows last. Round after round each gives its most typical row, the one with the least mean distance to its
    20 nearest neighbours in the cluster (or half the cluster, where that is less) among the rows not picked
    yet; of equals the lowest index.

    Args:
        features: float32 (N, D), finite.
        labelled: float32 (L, D), finite; L may be 0.
        budget: how many rows to pick, 0 to N.
        seed: of k-means.

    Raises:
        InvalidRequestError: as `k_center.k_center_greedy`.
    """
    check_features(features, "features")
    check_features(labelled, "labelled")
    check_same_width(features, labelled)
    check_budget(budget, len(features))
    if budget == 0:
        return TypiClustBatch(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    count = min(len(labelled) + budget, _MOST_CLUSTERS, len(features) + len(labelled))
    clusters, labelled_clusters = _clusters(features, labelled, count, seed)
    return pick_typical(features, clusters, labelled_clusters, budget)


def pick_typical(
    features: Features, clusters: Indices, labelled_clusters: Indices, budget: int
) -> TypiClustBatch:
    """Returns what `typiclust` picks once rows are clustered.

    Args:
        features: float32 (N, D).
        clusters: int64 (N,): the cluster of each row.
        labelled_clusters: int64 (L,): the cluster of each labelled row.
        budget: how many rows to pick, 0 to N.
    """
    count = int(max(clusters.max(initial=-1), labelled_clusters.max(initial=-1))) + 1
    covered = np.bincount(labelled_clusters, minlength=count)
    sizes = np.bincount(clusters, minlength=count) + covered
    order = np.lexsort((np.arange(count), -sizes, covered, sizes < _SMALLEST_CLUSTER))
    members = {int(cluster): np.flatnonzero(clusters == cluster) for cluster in order}
    picks: list[int] = []
    typicality: list[float] = []
    picked_from: list[int] = []
    while len(picks) < budget:
        still_holding = [int(cluster) for cluster in order if len(members[int(cluster)])]
        for cluster in still_holding[: budget - len(picks)]:
            rows = members[cluster]
            typical = _typicality(features[rows])
            best = int(typical.argmax())
            picks.append(int(rows[best]))
            typicality.append(float(typical[best]))
            picked_from.append(cluster)
            members[cluster] = np.delete(rows, best)
    return TypiClustBatch(np.array(picks, np.int64), np.array(typicality), np.array(picked_from, np.int64))


def _typicality(rows: Features) -> Doubles:
    """Returns float64 (n,). FAISS says which rows are near; how near is computed in float64."""
    neighbours = min(_NEIGHBOURS, len(rows) // 2)
    if neighbours == 0:
        return np.zeros(len(rows))
    placed = Frame.around(rows).place(rows).near
    found = faiss.knn(placed, placed, neighbours + 1)[1]
    distances = np.stack([squared_distances(rows, rows[column]) for column in found.T], axis=1) ** 0.5
    # The nearest is the row itself, or one that is as near.
    distances.sort(axis=1)
    with np.errstate(divide="ignore"):
        typicality: Doubles = 1 / distances[:, 1:].mean(axis=1)
    return typicality


def _clusters(features: Features, labelled: Features, count: int, seed: int) -> tuple[Indices, Indices]:
    """Returns int64 (N,) and (L,): the cluster of each row, by k-means on a sample of them."""
    frame = Frame.around(features, labelled)
    random = np.random.default_rng(seed)
    size = len(features) + len(labelled)
    sample = np.sort(random.permutation(size)[: count * _SAMPLED_PER_CLUSTER])
    from_pool, from_labelled = np.split(sample, [int(np.searchsorted(sample, len(features)))])
    rows = np.concatenate([features[from_pool], labelled[from_labelled - len(features)]])
    kmeans = faiss.Kmeans(
        features.shape[1], count, niter=_ITERATIONS, seed=seed % 2**31, min_points_per_centroid=1
    )
    kmeans.train(frame.place(rows).near)

    def nearest(rows: Features) -> Indices:
        blocks = range(0, len(rows), ROWS_AT_ONCE)
        found = [kmeans.assign(frame.place(rows[first : first + ROWS_AT_ONCE]).near)[1] for first in blocks]
        return np.concatenate([np.empty(0, np.int64), *found])

    return nearest(features), nearest(labelled)
