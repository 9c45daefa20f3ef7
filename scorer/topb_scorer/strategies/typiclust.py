"""TypiClust: pick typical rows of the largest clusters without labelled rows. Suited to small budgets.

Hacohen, Dekel and Weinshall, Active learning on a budget: opposite strategies suit high and low budgets (ICML
2022), algorithm 1 and section 3.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.geometry.cluster_density import ClusterDensity
from topb_scorer.geometry.distinct import distinct_rows
from topb_scorer.geometry.euclidean import Doubles, Features, Frame, Indices
from topb_scorer.geometry.k_means import ROWS_PER_CLUSTER, k_means, nearest_centroids
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite

_MOST_CLUSTERS = 500
_SMALLEST_CLUSTER = 5
_ITERATIONS = 20


class TypiClust(SetBasedStrategy):
    """Pick the most typical image of each cluster without labelled images."""

    name = "typiclust"
    needs = frozenset({"features"})

    def working_bytes(self, candidates: int, labelled: int, width: int, budget: int) -> int:
        """Return the memory for a few numbers a row, and for the sample that is clustered."""
        clusters = min(labelled + budget, _MOST_CLUSTERS)
        sampled = min(candidates + labelled, clusters * ROWS_PER_CLUSTER)
        return super().working_bytes(candidates, labelled, width, budget) + 4 * width * sampled

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return `budget` rows, taking the most typical row of each cluster in turn. Scores are typicalities.

        Candidates and labelled rows are clustered together by k-means into L + b clusters, at most 500. Each
        cluster that gives a row is compared with itself once, so the time grows with the sum of the squared
        sizes of these clusters: with few clusters, twice the pool takes four times as long.
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
        check: called before each pick and each block of distances.

    Returns:
        indices: int64 (budget,), in pick order.
        typicality: float64 (budget,), 1 / mean distance; 0 for a row without neighbours in its cluster.
    """
    count = int(max(clusters.max(initial=-1), labelled_clusters.max(initial=-1))) + 1
    covered = np.bincount(labelled_clusters, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    total = sizes + covered
    order = np.lexsort((np.arange(count), -total, covered, total < _SMALLEST_CLUSTER))
    frame, groups = Frame.around(features), distinct_rows(features, check)[1]
    by_cluster = np.split(np.argsort(clusters, kind="stable"), np.cumsum(sizes)[:-1])
    found: list[tuple[int, int, int, float]] = []
    quotas = _quotas(sizes[order], budget)
    for position in np.flatnonzero(quotas).tolist():
        rows = by_cluster[order[position]]
        density = ClusterDensity(features, rows, groups[rows], frame, check)
        turns = checked(range(quotas[position]), check)
        found += [(turn, position, *density.take_most_typical()) for turn in turns]
    found.sort()
    return np.array([row for *_, row, _ in found], np.int64), np.array([typical for *_, typical in found])


def _quotas(sizes: Indices, budget: int) -> Indices:
    """Return how many rows each cluster gives, int64 (n,), if they give one each in turn while they last.

    Args:
        sizes: int64 (n,), the number of rows of each cluster, in the order of the turns.
        budget: the number of rows of all clusters together, at most Σ sizes.
    """

    def after(turns: int) -> Indices:
        return np.minimum(sizes, turns)

    complete = bisect_left(range(budget), budget, key=lambda turns: int(after(turns + 1).sum()))
    quotas = after(complete)
    quotas[np.flatnonzero(sizes > complete)[: budget - int(quotas.sum())]] += 1
    return quotas


def _clusters(
    features: Features, labelled: Features, count: int, seed: int, check: Check
) -> tuple[Indices, Indices]:
    """Cluster all rows by k-means on a sample, and return their clusters, int64 (N,) and (L,)."""
    random = np.random.default_rng(seed)
    size = len(features) + len(labelled)
    sample = np.sort(random.permutation(size)[: count * ROWS_PER_CLUSTER])
    from_pool, from_labelled = np.split(sample, [int(np.searchsorted(sample, len(features)))])
    rows = np.concatenate([features[from_pool], labelled[from_labelled - len(features)]])
    centroids = k_means(rows, count, iterations=_ITERATIONS, seed=seed, check=check)
    return nearest_centroids(features, centroids, check), nearest_centroids(labelled, centroids, check)
