"""Cluster rows by k-means in FAISS, which cannot be interrupted, one iteration at a time."""

from __future__ import annotations

import faiss
import numpy as np

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.euclidean import Features


def k_means(rows: Features, count: int, *, iterations: int, seed: int, check: Check) -> Features:
    """Return the centroids of k-means after `iterations` iterations of Lloyd's algorithm, float32 (count, D).

    If there are more than 256 rows per cluster, a random sample of that size is clustered.

    Args:
        rows: float32 (n, D), C-contiguous, n ≥ count.
        count: the number of clusters.
        iterations: the number of iterations, at least 1.
        seed: the seed for drawing the sample and the first centroids.
        check: called before each iteration.
    """
    k_means = faiss.Kmeans(rows.shape[1], count, niter=1, seed=seed % 2**31, min_points_per_centroid=1)
    centroids: Features | None = None
    for _ in checked(range(iterations), check):
        k_means.train(rows, init_centroids=centroids)
        centroids = np.array(k_means.centroids)
    assert centroids is not None
    return centroids
