"""BADGE draws as k-means++ does on gradient embeddings that are built in full, in float64."""

import itertools

import numpy as np
import pytest

from topb_scorer.errors import InvalidRequestError
from topb_scorer.strategies import badge_algorithm as badge_module
from topb_scorer.strategies.badge_algorithm import badge

pytestmark = pytest.mark.scorer


def made(size, width=4, classes=3, seed=0):
    random = np.random.default_rng(seed)
    features = random.standard_normal((size, width)).astype(np.float32)
    probabilities = random.dirichlet(np.full(classes, 0.5), size).astype(np.float32)
    return features, probabilities


def embeddings(features, probabilities):
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    return (errors[:, :, None] * features.astype(np.float64)[:, None, :]).reshape(len(features), -1)


def distances_when_picked(rows, picks):
    return [
        min((np.linalg.norm(rows[pick] - rows[earlier]) for earlier in picks[:k]), default=np.inf)
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
def test_batches_are_as_frequent_as_under_k_means_plus_plus(monkeypatch, passes):
    monkeypatch.setattr(badge_module, "_PICKS_BETWEEN_PASSES", passes)
    features, probabilities = made(5, seed=3)
    expected = chances(embeddings(features, probabilities), 3)
    assert sum(expected.values()) == pytest.approx(1)
    draws = 3000
    counted = dict.fromkeys(expected, 0)
    for seed in range(draws):
        counted[
            tuple(badge(features=features, probabilities=probabilities, budget=3, seed=seed).indices.tolist())
        ] += 1
    likely = [picks for picks, chance in expected.items() if chance * draws >= 5]
    chi_squared = sum((counted[p] - draws * expected[p]) ** 2 / (draws * expected[p]) for p in likely)
    # Mean and standard deviation of χ²(n) are n and √2n.
    assert chi_squared < len(likely) + 4 * (2 * len(likely)) ** 0.5


def test_distances_are_those_of_the_gradient_embeddings():
    features, probabilities = made(900, width=20, classes=7)
    batch = badge(features=features, probabilities=probabilities, budget=300)
    assert len(set(batch.indices.tolist())) == 300
    expected = distances_when_picked(embeddings(features, probabilities), batch.indices.tolist())
    np.testing.assert_allclose(batch.distances, expected, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_features_of_any_size_are_drawn_alike(scale):
    features, probabilities = made(100)
    picks = [
        badge(
            features=(features * 2.0**k).astype(np.float32), probabilities=probabilities, budget=30
        ).indices.tolist()
        for k in (0, round(np.log2(scale)))
    ]
    assert picks[0] == picks[1]


def test_duplicates_come_last():
    features, probabilities = (np.repeat(rows, 10, axis=0) for rows in made(6))
    batch = badge(features=features, probabilities=probabilities, budget=60)
    assert len({i // 10 for i in batch.indices[:6].tolist()}) == 6
    assert (batch.distances[6:] == 0).all()
    assert sorted(batch.indices.tolist()) == list(range(60))


def test_the_same_seed_draws_the_same_rows_and_another_others():
    features, probabilities = made(200)
    first, again, other = (
        badge(features=features, probabilities=probabilities, budget=50, seed=seed).indices.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_empty_budget_is_an_empty_batch():
    features, probabilities = made(3)
    assert badge(features=features, probabilities=probabilities, budget=0).indices.shape == (0,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"probabilities": np.full((4, 3), 0.3, np.float32)}, "PROBABILITIES_SHAPE"),
        ({"probabilities": np.full((5, 3), 0.3)}, "PROBABILITIES_SHAPE"),
        ({"probabilities": np.full((5, 3), np.nan, np.float32)}, "PROBABILITIES_OUT_OF_RANGE"),
        ({"probabilities": np.full((5, 3), 1.5, np.float32)}, "PROBABILITIES_OUT_OF_RANGE"),
        ({"budget": 6}, "BUDGET_TOO_LARGE"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(change, reason):
    features, probabilities = made(5)
    with pytest.raises(InvalidRequestError) as refused:
        badge(**{"features": features, "probabilities": probabilities, "budget": 2} | change)
    assert refused.value.reason == reason
