"""Of the best-scored candidates, those that lie far apart; against a loop over every distance in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.selecting import set_candidates
from topb_scorer.strategies.diversity import Diversified
from topb_scorer.strategies.entropy import Entropy

pytestmark = pytest.mark.scorer


def made(size, width=3, known=0, seed=0, grid=False):
    random = np.random.default_rng(seed)
    shape = (size + known, width)
    rows = random.integers(0, 3, shape) if grid else random.standard_normal(shape)
    scores = random.integers(0, 5, size) if grid else random.standard_normal(size)
    return scores.astype(np.float32), rows[:size].astype(np.float32), rows[size:].astype(np.float32)


def diversified(scores, features, labelled, budget, oversampling=5, **options):
    candidates = set_candidates(features, labelled, scores=scores)
    return Diversified(Entropy(), oversampling, **options).select(candidates, budget=budget, seed=0)


def distance(x, y):
    return ((x.astype(np.float64) - y.astype(np.float64)) ** 2).sum() ** 0.5


def reference(scores, features, labelled, budget, oversampling, score_weight, min_distance):
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    picks, distances = [], []
    for first in range(0, len(ranked), max(1, oversampling * budget)):
        candidates = ranked[first : first + oversampling * budget]
        best, worst = (float(scores[candidates[end]]) for end in (0, -1)) if candidates else (0, 0)
        while len(picks) < budget:
            chosen = [*labelled, *features[picks]]
            nearest = {i: min((distance(features[i], c) for c in chosen), default=np.inf) for i in candidates}
            far = [i for i in candidates if i not in picks and nearest[i] > min_distance]
            if not far:
                break

            def value(i, nearest=nearest, best=best, worst=worst):
                fallen = (best - float(scores[i])) / (best - worst) if best > worst else 0
                return nearest[i] ** 2 * max(1 - score_weight * fallen, 2**-30) ** 2

            pick = max(far, key=value)
            picks.append(pick)
            distances.append(nearest[pick])
    return picks, distances


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 25),
    known=st.integers(0, 4),
    share=st.floats(0, 1),
    oversampling=st.integers(1, 4),
    score_weight=st.sampled_from([0.0, 0.3, 1.0]),
    min_distance=st.sampled_from([0.0, 0.7, 1.5]),
    seed=st.integers(0, 2**32 - 1),
    grid=st.booleans(),
)
def test_the_picks_equal_those_of_the_reference(
    size, known, share, oversampling, score_weight, min_distance, seed, grid
):
    scores, features, labelled = made(size, known=known, seed=seed, grid=grid and score_weight == 0)
    budget = max(1, int(share * size))
    options = {"oversampling": oversampling, "score_weight": score_weight, "min_distance": min_distance}
    batch = diversified(scores, features, labelled, budget, **options)
    picks, distances = reference(scores, features, labelled, budget, **options)
    assert batch.indices.tolist() == picks
    np.testing.assert_allclose(batch.radii, np.where(np.isinf(distances), 0, distances), rtol=1e-9)
    assert batch.scores.tolist() == scores[picks].tolist()


def test_a_pool_of_duplicates_gives_one_of_each_and_counts_the_rest():
    features = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    batch = diversified(np.arange(12), features, features[:0], 6, 2)
    assert sorted(features[batch.indices].argmax(axis=1)) == [0, 1, 2]
    assert batch.measures["near_duplicates"] == 9
    assert batch.indices[0] == 11


def test_the_measures_report_the_cost_in_score_and_the_gain_in_coverage():
    random = np.random.default_rng(1)
    features = random.standard_normal((500, 4)).astype(np.float32)
    scores = features[:, 0].copy()
    batch = diversified(scores, features, features[:0], 20)
    candidates = np.argsort(-scores, kind="stable")[:100]
    for chosen, suffix in ((batch.indices, ""), (candidates[:20], "_of_top")):
        nearest = [min(distance(features[i], features[j]) for j in chosen) for i in candidates]
        assert batch.measures["mean_score" + suffix] == pytest.approx(scores[chosen].mean())
        assert batch.measures["radius" + suffix] == pytest.approx(max(nearest))
        assert batch.measures["mean_distance" + suffix] == pytest.approx(np.mean(nearest))
    assert batch.measures["mean_score"] < batch.measures["mean_score_of_top"]
    assert batch.measures["radius"] < batch.measures["radius_of_top"]
