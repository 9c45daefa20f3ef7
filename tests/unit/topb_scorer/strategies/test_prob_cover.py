"""ProbCover picks the row that covers most, as counting every pair in float64 does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.selecting import set_candidates
from topb_scorer.cancellation import never_cancelled
from topb_scorer.geometry.balls import radius_of_balls
from topb_scorer.strategies.prob_cover import ProbCover

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
    assert batch.measures["ball_radius"] == radius
    assert batch.measures["covered_share"] == covered / size
    assert "counted_rows" not in batch.measures


def test_rows_far_from_the_origin_are_covered_like_rows_near_it():
    features, labelled, probabilities = made(2500, 10)
    features, labelled = features + np.float32(3000), labelled + np.float32(3000)
    batch = covering(features, labelled, probabilities, 30, radius=0.3)
    picks, gains, covered = reference(features, labelled, 30, 0.3)
    assert (batch.indices.tolist(), batch.scores.tolist()) == (picks, gains)
    assert batch.measures["covered_share"] == covered / 2500


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 1.0])
def test_half_of_the_balls_hold_the_share_of_the_rows(share):
    features, _, _ = made(2000)
    radius = radius_of_balls(features, share, seed=1, check=never_cancelled)
    held = np.sort((distances(features, features) <= radius).sum(axis=1))
    # The radius is the median of 256 rows, so the quantile of all rows is within four standard deviations.
    assert held[int(2000 * 0.375)] <= max(2, share * 2000 + 1) <= held[int(2000 * 0.625)] + 1


@pytest.mark.parametrize(("budget", "labelled"), [(20, 0), (50, 0), (200, 0), (50, 100)])
def test_the_default_radius_lets_the_budget_cover_most_of_the_pool(budget, labelled):
    random = np.random.default_rng(0)
    middles = 3 * random.standard_normal((10, 16))
    rows = (middles[random.integers(0, 10, 3000)] + random.standard_normal((3000, 16))).astype(np.float32)
    classes = np.eye(4, dtype=np.float32)[random.integers(0, 4, 3000 - labelled)]
    batch = covering(rows[labelled:], rows[:labelled], classes, budget)
    assert batch.measures["covered_share"] > 0.6
    assert batch.measures["mean_ball"] > (3000 - labelled) / (budget + labelled) / 2


def test_a_single_row_and_equal_rows_are_covered_by_the_default():
    features = np.ones((7, 2), np.float32)
    for rows in (features[:1], features):
        batch = covering(rows, features[:0], np.ones((len(rows), 1), np.float32), len(rows))
        assert batch.indices.tolist() == list(range(len(rows)))
        assert batch.scores.tolist() == [len(rows), *[0] * (len(rows) - 1)]
        assert batch.measures["covered_share"] == 1


@pytest.mark.parametrize("options", [{"max_counted": 300}, {"max_pairs": 40_000}])
def test_gains_are_estimated_from_a_sample_if_the_pool_is_too_large_and_reported_exactly(options):
    features, labelled, probabilities = made(1500, 3)
    budget, radius = 25, 0.4
    batch = covering(features, labelled, probabilities, budget, radius=radius, **options)
    assert 100 <= batch.measures["counted_rows"] < 1400
    near = distances(features, features) <= radius
    covered = (distances(features, labelled) <= radius).any(axis=1)
    for pick, score in zip(batch.indices.tolist(), batch.scores.tolist(), strict=True):
        assert score == (near[pick] & ~covered).sum()
        covered = covered | near[pick]
    assert batch.measures["covered_share"] == covered.sum() / 1500
    _, gains, best = reference(features, labelled, budget, radius)
    assert covered.sum() > 0.9 * best
    assert abs(batch.scores[0] - gains[0]) < 4 * 2**0.5 * batch.measures["gain_error"]


def test_a_sample_is_drawn_again_until_all_rows_are_covered():
    features, labelled, probabilities = made(600)
    batch = covering(features, labelled, probabilities, 600, radius=0.1, max_counted=50)
    assert sorted(batch.indices.tolist()) == list(range(600))
    assert batch.measures["covered_share"] == 1
    assert batch.scores.sum() == 600


@pytest.mark.timeout(60)
def test_a_pool_of_equal_rows_is_covered_by_one():
    features = np.full((200_000, 8), 0.1, np.float32)
    batch = covering(features, features[:1] + 1, np.ones((200_000, 1), np.float32), 3, radius=0.0)
    assert batch.indices.tolist() == [0, 1, 2]
    assert batch.scores.tolist() == [200_000, 0, 0]
