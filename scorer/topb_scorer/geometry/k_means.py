"""Cluster rows by k-means. Each row is assigned to the nearest centroid as float64 compares the distances.

FAISS decides by float32 products, whose last bits depend on the number of threads of BLAS.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.distinct import distinct_rows
from topb_scorer.geometry.euclidean import Features, Frame, Indices, blocks

ROWS_PER_CLUSTER = 256
"""With more rows per cluster than this, a sample determines the centroids."""


def k_means(rows: Features, count: int, *, iterations: int, seed: int, check: Check) -> Features:
    """Return the centroids of k-means after `iterations` iterations of Lloyd's algorithm, float32 (count, D).

    The first centroids are different rows, drawn at random. If there are fewer than `count`, some centroids
    are equal. A centroid to which no row is assigned stays where it is. If there are more than 256 rows per
    cluster, a random sample of that size is clustered.

    Args:
        rows: float32 (n, D), finite, n ≥ 1.
        count: the number of clusters, at least 1.
        iterations: the number of iterations.
        seed: the seed for drawing the sample and the first centroids.
        check: called between blocks of rows.
    """
    random = np.random.default_rng(seed)
    if len(rows) > count * ROWS_PER_CLUSTER:
        rows = rows[np.sort(random.permutation(len(rows))[: count * ROWS_PER_CLUSTER])]
    first, _ = distinct_rows(rows, check)
    centroids = rows[np.resize(random.permutation(first), count)]
    for _ in range(iterations):
        clusters = nearest_centroids(rows, centroids, check)
        centroids = _means(rows, clusters, centroids, check)
    return centroids


def nearest_centroids(rows: Features, centroids: Features, check: Check) -> Indices:
    """Return the index of the nearest centroid of each row, int64 (n,). Ties go to the lowest index."""
    nearest = np.empty(len(rows), np.int64)
    if len(rows):
        # Centroids are means, so no products with them are exact.
        frame = replace(Frame.around(rows, centroids), exact=frozenset())
        # Equal centroids would tie for every row.
        distinct = np.sort(distinct_rows(centroids, check)[0])
        placed = frame.place(centroids[distinct])
        for block in checked(blocks(len(rows)), check):
            nearest[block] = distinct[frame.nearest_centre(frame.place(rows[block]), placed, check)]
    return nearest


def _means(rows: Features, clusters: Indices, centroids: Features, check: Check) -> Features:
    """Return the mean of each cluster, or its centroid if it is empty. Sums are in the order of the rows."""
    sums = np.zeros(centroids.shape)
    order = np.argsort(clusters, kind="stable")
    for block in checked(blocks(len(order)), check):
        numbers, starts = np.unique(clusters[order[block]], return_index=True)
        sums[numbers] += np.add.reduceat(rows[order[block]].astype(np.float64), starts, axis=0)
    sizes = np.bincount(clusters, minlength=len(centroids))[:, None]
    means: Features = np.where(sizes, sums / np.maximum(sizes, 1), centroids).astype(np.float32)
    return means
