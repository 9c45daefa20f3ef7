"""BADGE draws as k-means++ does on gradient embeddings that are built in full, in float64."""

import itertools

import numpy as np
import pytest

from support.selecting import set_candidates
from topb_scorer.strategies.badge import Badge

pytestmark = pytest.mark.scorer


def made(size, width=4, classes=3, seed=0):
    random = np.random.default_rng(seed)
    features = random.standard_normal((size, width)).astype(np.float32)
    probabilities = random.dirichlet(np.full(classes, 0.5), size).astype(np.float32)
    return features, probabilities


def drawn(features, probabilities, budget, seed=0, **settings):
    candidates = set_candidates(features, probabilities=probabilities)
    return Badge(**settings).select(candidates, budget=budget, seed=seed)


def embeddings(features, probabilities):
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    return (errors[:, :, None] * features.astype(np.float64)[:, None, :]).reshape(len(features), -1)


def distances_when_picked(rows, picks):
    return [
        min((np.linalg.norm(rows[pick] - rows[earlier]) for earlier in picks[:k]), default=0.0)
        for k, pick in enumerate(picks)
    ]


def chances(rows, budget):
    """The probability of every ordered batch under k-means++."""
    found = {}
    for picks in itertools.permutations(range(len(rows)), budget):
        chance = 1 / len(rows)
        for k in range(1, budget):
            squared = ((rows[:, None] - rows[list(picks[:k])]) ** 2).sum(axis=2).min(axis=1)
            chance *= squared[picks[k]] / squared.sum()
        found[picks] = chance
    return found


@pytest.mark.parametrize("passes", [1, 128])
def test_batches_are_drawn_as_often_as_by_k_means_plus_plus(passes):
    features, probabilities = made(5, seed=3)
    expected = chances(embeddings(features, probabilities), 3)
    assert sum(expected.values()) == pytest.approx(1)
    draws = 3000
    counted = dict.fromkeys(expected, 0)
    for seed in range(draws):
        batch = drawn(features, probabilities, 3, seed, picks_between_passes=passes)
        counted[tuple(batch.indices.tolist())] += 1
    likely = [picks for picks, chance in expected.items() if chance * draws >= 5]
    chi_squared = sum((counted[p] - draws * expected[p]) ** 2 / (draws * expected[p]) for p in likely)
    # Mean and standard deviation of χ²(n) are n and √2n.
    assert chi_squared < len(likely) + 4 * (2 * len(likely)) ** 0.5


def test_distances_equal_those_of_the_gradient_embeddings():
    features, probabilities = made(900, width=20, classes=7)
    batch = drawn(features, probabilities, 300)
    assert len(set(batch.indices.tolist())) == 300
    expected = distances_when_picked(embeddings(features, probabilities), batch.indices.tolist())
    np.testing.assert_allclose(batch.scores, expected, rtol=1e-3)


def test_the_scale_of_features_does_not_change_the_picks():
    features, probabilities = made(100)
    small, picks, large = (
        drawn((features * 2.0**k).astype(np.float32), probabilities, 30).indices.tolist()
        for k in (-100, 0, 100)
    )
    assert small == picks == large


def test_duplicates_are_picked_last():
    features, probabilities = (np.repeat(rows, 10, axis=0) for rows in made(6))
    batch = drawn(features, probabilities, 60)
    assert len({i // 10 for i in batch.indices[:6].tolist()}) == 6
    assert (batch.scores[6:] == 0).all()
    assert sorted(batch.indices.tolist()) == list(range(60))


def test_equal_seeds_pick_equal_rows_and_other_seeds_other_rows():
    features, probabilities = made(200)
    first, again, other = (drawn(features, probabilities, 50, seed).indices.tolist() for seed in (1, 1, 2))
    assert first == again != other
