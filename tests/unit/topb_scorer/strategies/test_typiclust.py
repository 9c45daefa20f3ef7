"""TypiClust picks the most typical rows, cluster by cluster, as the paper's definition says in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.selecting import set_candidates
from topb_scorer.strategies.typiclust import TypiClust, pick_typical

pytestmark = pytest.mark.scorer


def reference(features, clusters, labelled_clusters, budget):
    rows = features.astype(np.float64)
    numbers = sorted(set(clusters) | set(labelled_clusters))
    held = {c: list(labelled_clusters).count(c) for c in numbers}
    size = {c: list(clusters).count(c) + held[c] for c in numbers}
    order = sorted(numbers, key=lambda c: (size[c] < 5, held[c], -size[c], c))
    picks, typicality = [], []
    while len(picks) < budget:
        for c in order:
            left = [i for i in range(len(rows)) if clusters[i] == c and i not in picks]
            if not left or len(picks) == budget:
                continue
            k = min(20, len(left) // 2)

            def typical(i, left=left, k=k):
                distances = sorted(np.linalg.norm(rows[i] - rows[j]) for j in left if j != i)
                return 1 / np.mean(distances[:k]) if k else 0.0

            pick = max(left, key=typical)
            picks.append(pick)
            typicality.append(typical(pick))
    return picks, typicality


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 8), st.integers(1, 6), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_picks_equal_those_of_the_reference(size, known, count, share, seed):
    random = np.random.default_rng(seed)
    features = random.standard_normal((size, 3)).astype(np.float32)
    clusters, labelled_clusters = random.integers(0, count, size), random.integers(0, count, known)
    budget = max(1, int(share * size))
    picks, typicality = pick_typical(features, clusters, labelled_clusters, budget)
    expected = reference(features, clusters.tolist(), labelled_clusters.tolist(), budget)
    assert picks.tolist() == expected[0]
    np.testing.assert_allclose(typicality, expected[1], rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_copies_of_rows_are_picked_as_by_the_reference(size, values, count, share, seed):
    random = np.random.default_rng(seed)
    # In one dimension with few values, sums of distances are exact, so that ties are the same for both.
    features = 2.0 ** random.integers(0, values, (size, 1)).astype(np.float32)
    clusters = random.integers(0, count, size)
    budget = max(1, int(share * size))
    picks, typicality = pick_typical(features, clusters, clusters[:0], budget)
    with np.errstate(divide="ignore"):
        expected = reference(features, clusters.tolist(), [], budget)
    assert picks.tolist() == expected[0]
    np.testing.assert_allclose(typicality, expected[1], rtol=1e-9)


@pytest.mark.slow
def test_rows_that_float32_products_cannot_tell_apart_are_picked_as_by_the_reference():
    random = np.random.default_rng(0)
    # Two tight groups far apart in one cluster.
    middles = np.repeat([[100.0], [-100.0]], 100, axis=0)
    features = (middles + 1e-4 * random.standard_normal((200, 3))).astype(np.float32)
    clusters = np.zeros(200, np.int64)
    picks, typicality = pick_typical(features, clusters, clusters[:0], 40)
    expected = reference(features, clusters.tolist(), [], 40)
    assert picks.tolist() == expected[0]
    np.testing.assert_allclose(typicality, expected[1], rtol=1e-9)


@pytest.mark.slow
def test_a_cluster_of_several_blocks_is_searched_as_by_the_reference():
    random = np.random.default_rng(0)
    features = random.standard_normal((5000, 3)).astype(np.float32)
    clusters = np.zeros(5000, np.int64)
    picks, typicality = pick_typical(features, clusters, clusters[:0], 3)
    rows, left = features.astype(np.float64), list(range(5000))
    for pick, typical in zip(picks.tolist(), typicality.tolist(), strict=True):
        means = [np.sort(np.linalg.norm(rows[left] - rows[i], axis=1))[1:21].mean() for i in left]
        assert left[int(np.argmin(means))] == pick
        assert typical == pytest.approx(1 / min(means), rel=1e-9)
        left.remove(pick)


@pytest.mark.timeout(60)
def test_a_pool_of_equal_rows_is_picked_in_order():
    features = np.ones((100_000, 8), np.float32)
    batch = TypiClust().select(set_candidates(features), budget=200, seed=0)
    assert batch.indices.tolist() == list(range(200))


def blobs(seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate([
        random.standard_normal((60, 4)) * 0.1 + centre for centre in 10 * np.eye(4)
    ]).astype(np.float32)  # fmt: skip


def test_each_unlabelled_cluster_gives_a_row_near_its_middle():
    features = blobs()
    picks, _ = pick_typical(features, np.repeat(np.arange(4), 60), np.array([0]), 3)
    assert (picks // 60).tolist() == [1, 2, 3]
    for pick in picks:
        members = features[pick // 60 * 60 :][:60]
        from_middle = np.linalg.norm(members - members.mean(axis=0), axis=1)
        assert from_middle[pick % 60] < np.median(from_middle)


def test_the_same_seed_picks_the_same_rows():
    candidates = set_candidates(blobs())
    first, again = (TypiClust().select(candidates, budget=30, seed=4).indices.tolist() for _ in range(2))
    assert first == again
    assert len(set(first)) == 30


def test_all_of_a_small_pool_of_duplicates_can_be_picked():
    features = np.ones((12, 2), np.float32)
    batch = TypiClust().select(set_candidates(features, features[:3]), budget=12, seed=0)
    assert sorted(batch.indices.tolist()) == list(range(12))
    assert batch.scores.tolist() == [0] * 12
