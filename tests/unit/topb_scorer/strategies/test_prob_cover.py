"""ProbCover picks the row that covers most, as counting every pair in float64 does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.selecting import set_candidates
from topb_scorer.errors import LimitExceededError
from topb_scorer.strategies.prob_cover import ProbCover, largest_pure_radius

pytestmark = pytest.mark.scorer


def made(size, known=0, seed=0, grid=False):
    random = np.random.default_rng(seed)
    rows = random.integers(0, 5, (size + known, 2)) if grid else random.standard_normal((size + known, 2))
    probabilities = random.dirichlet(np.ones(3), size).astype(np.float32)
    return rows[:size].astype(np.float32), rows[size:].astype(np.float32), probabilities


def covering(features, labelled, probabilities, budget, **options):
    candidates = set_candidates(features, labelled, probabilities)
    return ProbCover(**options).select(candidates, budget=budget, seed=0)


def distances(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return ((x[:, None] - y[None]) ** 2).sum(axis=2) ** 0.5


def reference(features, labelled, budget, radius):
    within = distances(features, features) <= radius
    covered = (distances(features, labelled) <= radius).any(axis=1)
    picks, gains = [], []
    for _ in range(budget):
        gain = [(within[i] & ~covered).sum() if i not in picks else -1 for i in range(len(features))]
        pick = int(np.argmax(gain))
        picks.append(pick)
        gains.append(gain[pick])
        covered = covered | within[pick]
    return picks, gains, covered.sum()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 5),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 9.0]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_the_picks_equal_those_of_the_reference(size, known, share, radius, seed, grid):
    features, labelled, probabilities = made(size, known, seed, grid)
    budget = max(1, int(share * size))
    batch = covering(features, labelled, probabilities, budget, radius=radius)
    picks, gains, covered = reference(features, labelled, budget, radius)
    assert batch.indices.tolist() == picks
    assert batch.scores.tolist() == gains
    assert batch.measures == {"ball_radius": radius, "covered_share": covered / size}


def test_rows_far_from_the_origin_are_covered_like_rows_near_it():
    features, labelled, probabilities = made(2500, 10)
    features, labelled = features + np.float32(3000), labelled + np.float32(3000)
    batch = covering(features, labelled, probabilities, 30, radius=0.3)
    picks, gains, covered = reference(features, labelled, 30, 0.3)
    assert (batch.indices.tolist(), batch.scores.tolist()) == (picks, gains)
    assert batch.measures["covered_share"] == covered / 2500


@pytest.mark.parametrize("purity", [0.5, 0.95])
def test_the_radius_is_the_largest_with_the_required_purity(purity):
    features, _, probabilities = made(600)
    classes = (features[:, 0] > 0.3).astype(np.int64)
    radius = largest_pure_radius(features=features, classes=classes, purity=purity)
    apart = distances(features, features)
    others = np.where(classes[:, None] != classes, apart, np.inf).min(axis=1)
    assert (others > radius).mean() >= purity
    assert (others > radius * 1.02).mean() < purity + 0.02
    batch = covering(features, features[:0], probabilities, 3)
    assert batch.measures["ball_radius"] == largest_pure_radius(
        features=features, classes=probabilities.argmax(axis=1)
    )


def test_with_a_single_class_the_radius_covers_the_whole_pool():
    features, _, _ = made(50)
    radius = largest_pure_radius(features=features, classes=np.zeros(50, np.int64))
    assert distances(features, features).max() / 2 <= radius <= distances(features, features).max() * 1.001


def test_more_pairs_than_the_memory_limit_are_refused():
    features, labelled, probabilities = made(100)
    with pytest.raises(LimitExceededError) as refused:
        covering(features, labelled, probabilities, 1, radius=9.0, max_pairs=9999)
    assert refused.value.reason == "PAIRS_OVER_LIMIT"
