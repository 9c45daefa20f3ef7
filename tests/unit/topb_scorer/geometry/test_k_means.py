"""K-means assigns every row to its nearest centroid, as comparing all pairs in float64 does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topb_scorer.cancellation import never_cancelled
from topb_scorer.geometry.distinct import distinct_rows
from topb_scorer.geometry.k_means import k_means, nearest_centroids

pytestmark = pytest.mark.scorer


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(axis=2)


@given(st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 5]), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_each_row_has_the_first_of_its_nearest_centroids(
    size: int, count: int, width: int, far: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    # Few integers: ties and equal centroids are the rule. Their distances are exact in float64.
    rows = random.integers(0, 3, (size, width)).astype(np.float32) + np.float32(3000 * far)
    centroids = random.integers(0, 3, (count, width)).astype(np.float32) + np.float32(3000 * far)
    found = nearest_centroids(rows, centroids, never_cancelled)
    assert found.tolist() == squared(rows, centroids).argmin(axis=1).tolist()


def test_rows_that_float32_products_cannot_tell_apart_have_their_nearest_centroid() -> None:
    random = np.random.default_rng(0)
    rows, centroids = (
        (np.repeat([[50.0], [-50.0]], size, axis=0) + 1e-4 * random.standard_normal((2 * size, 4))).astype(
            np.float32
        )
        for size in (1500, 20)
    )
    found = nearest_centroids(rows, centroids, never_cancelled)
    assert found.tolist() == squared(rows, centroids).argmin(axis=1).tolist()


def test_centroids_are_the_means_of_their_clusters_after_enough_iterations() -> None:
    random = np.random.default_rng(0)
    middles = 10 * random.standard_normal((6, 3))
    rows = (middles[random.integers(0, 6, 3000)] + random.standard_normal((3000, 3))).astype(np.float32)
    centroids = k_means(rows, 12, iterations=200, seed=1, check=never_cancelled)
    clusters = nearest_centroids(rows, centroids, never_cancelled)
    for number in np.unique(clusters).tolist():
        np.testing.assert_allclose(centroids[number], rows[clusters == number].mean(axis=0), rtol=1e-4)


def test_more_clusters_than_distinct_rows_repeat_centroids() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    centroids = k_means(rows, 8, iterations=3, seed=0, check=never_cancelled)
    assert centroids.shape == (8, 3)
    assert {tuple(row) for row in centroids.tolist()} == {tuple(row) for row in rows.tolist()}


@given(st.integers(0, 200), st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_distinct_rows_are_those_of_a_dict(size: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-1, 3, (size, width)) * np.float32(0.1)
    rows[rows == 0] *= np.where(np.arange((rows == 0).sum()) % 2, 1, -1).astype(np.float32)
    first_of: dict[tuple[float, ...], int] = {}
    for i, row in enumerate(rows.tolist()):
        first_of.setdefault(tuple(row), i)
    first, group = distinct_rows(rows, never_cancelled)
    assert sorted(first.tolist()) == sorted(first_of.values())
    assert first[group].tolist() == [first_of[tuple(row)] for row in rows.tolist()]
