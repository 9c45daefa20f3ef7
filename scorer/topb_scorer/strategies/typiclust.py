"""TypiClust: pick typical rows of the largest clusters without labelled rows. Suited to small budgets.

Hacohen, Dekel and Weinshall, Active learning on a budget: opposite strategies suit high and low budgets (ICML
2022), algorithm 1 and section 3.
"""

from __future__ import annotations

import faiss
import numpy as np

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.geometry.euclidean import Doubles, Features, Frame, Indices, blocks, squared_distances
from topb_scorer.geometry.k_means import k_means
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite

_MOST_CLUSTERS = 500
_NEIGHBOURS = 20
_SMALLEST_CLUSTER = 5
_ITERATIONS = 20
_SAMPLED_PER_CLUSTER = 256


class TypiClust(SetBasedStrategy):
    """Pick the most typical image of each cluster without labelled images."""

    name = "typiclust"
    needs = frozenset({"features"})

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return `budget` rows, taking the most typical row of each cluster in turn. Scores are typicalities.

        Candidates and labelled rows are clustered together by k-means into L + b clusters, at most 500.
        The typicality of duplicates is infinite, and is reported as 0.
        """
        features, labelled = candidates.features, candidates.labelled
        count = min(len(labelled) + budget, _MOST_CLUSTERS, len(features) + len(labelled))
        clusters, labelled_clusters = _clusters(features, labelled, count, seed, check)
        indices, typicality = pick_typical(features, clusters, labelled_clusters, budget, check)
        return SetBatch(indices, finite(typicality))


def pick_typical(
    features: Features,
    clusters: Indices,
    labelled_clusters: Indices,
    budget: int,
    check: Check = never_cancelled,
) -> tuple[Indices, Doubles]:
    """Return the rows that TypiClust picks from given clusters, and their typicalities.

    Clusters are sorted by their number of labelled rows, fewest first, then by size, largest first, then by
    number. Clusters with fewer than 5 rows come last. In each round, the most typical remaining row of each
    cluster is picked: the one with the smallest mean distance to its nearest neighbours in the cluster, of
    which there are 20, or half of the cluster if that is fewer. Ties go to the lowest index.

    Args:
        features: float32 (N, D).
        clusters: int64 (N,), the cluster of each row.
        labelled_clusters: int64 (L,), the cluster of each labelled row.
        budget: the number of rows to pick, 1 to N.
        check: called before each pick.

    Returns:
        indices: int64 (budget,), in pick order.
        typicality: float64 (budget,), 1 / mean distance; 0 for a row without neighbours in its cluster.
    """
    count = int(max(clusters.max(initial=-1), labelled_clusters.max(initial=-1))) + 1
    covered = np.bincount(labelled_clusters, minlength=count)
    sizes = np.bincount(clusters, minlength=count) + covered
    order = np.lexsort((np.arange(count), -sizes, covered, sizes < _SMALLEST_CLUSTER))
    members = {int(cluster): np.flatnonzero(clusters == cluster) for cluster in order}
    picks: list[int] = []
    typicality: list[float] = []
    while len(picks) < budget:
        still_holding = [int(cluster) for cluster in order if len(members[int(cluster)])]
        for cluster in checked(still_holding[: budget - len(picks)], check):
            rows = members[cluster]
            typical = _typicality(features[rows])
            best = int(typical.argmax())
            picks.append(int(rows[best]))
            typicality.append(float(typical[best]))
            members[cluster] = np.delete(rows, best)
    return np.array(picks, np.int64), np.array(typicality)


def _typicality(rows: Features) -> Doubles:
    """Return typicalities, float64 (n,). FAISS finds the neighbours; distances are computed in float64."""
    neighbours = min(_NEIGHBOURS, len(rows) // 2)
    if neighbours == 0:
        return np.zeros(len(rows))
    placed = Frame.around(rows).place(rows).near
    found = faiss.knn(placed, placed, neighbours + 1)[1]  # (n, neighbours + 1)
    distances = np.stack([squared_distances(rows, rows[column]) for column in found.T], axis=1) ** 0.5
    # The nearest neighbour is the row itself or a duplicate.
    distances.sort(axis=1)
    with np.errstate(divide="ignore"):
        typicality: Doubles = 1 / distances[:, 1:].mean(axis=1)
    return typicality


def _clusters(
    features: Features, labelled: Features, count: int, seed: int, check: Check
) -> tuple[Indices, Indices]:
    """Cluster all rows by k-means on a sample, and return their clusters, int64 (N,) and (L,)."""
    frame = Frame.around(features, labelled)
    random = np.random.default_rng(seed)
    size = len(features) + len(labelled)
    sample = np.sort(random.permutation(size)[: count * _SAMPLED_PER_CLUSTER])
    from_pool, from_labelled = np.split(sample, [int(np.searchsorted(sample, len(features)))])
    rows = np.concatenate([features[from_pool], labelled[from_labelled - len(features)]])
    centroids = faiss.IndexFlatL2(features.shape[1])
    centroids.add(k_means(frame.place(rows).near, count, iterations=_ITERATIONS, seed=seed, check=check))

    def nearest(rows: Features) -> Indices:
        found = [
            centroids.search(frame.place(rows[block]).near, 1)[1][:, 0]
            for block in checked(blocks(len(rows)), check)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    return nearest(features), nearest(labelled)
