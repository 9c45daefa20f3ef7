"""K-center greedy picks what brute force picks, in real arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from support.reference_k_center import brute_force, in_real_arithmetic
from topb_scorer.errors import DeviceError, InvalidRequestError, LimitExceededError
from topb_scorer.geometry import euclidean
from topb_scorer.geometry.k_center import BlockSizes, k_center_greedy
from topb_scorer.geometry.k_center_in_parts import k_center_greedy_in_parts

pytestmark = pytest.mark.scorer


# A dozen points take several blocks, rounds and fronts.
SMALL = BlockSizes(
    rows_at_once=3,
    few_centres=2,
    fewest_updated=3,
    few_picks=1,
    many_picks=2,
    largest_front=4,
    front_rows_at_once=2,
    fewest_searched=4,
)


def assert_exact(pool, labelled, budget, seed=0, sizes=SMALL):
    result = k_center_greedy(pool, labelled, budget, seed=seed, sizes=sizes)
    first = int(result.indices[0]) if budget and len(labelled) == 0 else None
    picks, squared_radii = in_real_arithmetic(pool, labelled, budget, first)
    assert result.indices.tolist() == picks
    expected = [np.inf if r is None else float(r) ** 0.5 for r in squared_radii]
    np.testing.assert_allclose(result.radii, expected, rtol=1e-12)
    assert (np.diff(result.radii[1:]) <= 0).all()
    assert not result.approximate


any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
# Their distances tie in real arithmetic, but not in float64.
few_values = st.sampled_from([0.0, 1.0, -1.0, 0.1, 0.2, 0.3, 1 / 3]).map(np.float32)
grid = st.integers(-2, 2).map(float)
offsets = st.sampled_from([0.0, 1.0, 1e4, 2.0**24, 1e30])


@st.composite
def selections(draw, elements):
    size, known, width = draw(st.integers(1, 14)), draw(st.integers(0, 7)), draw(st.integers(1, 5))
    rows = draw(st_numpy.arrays(np.float32, (size + known, width), elements=elements))
    sources = draw(st.lists(st.integers(0, size + known - 1), max_size=min(3, size + known)))
    rows[: len(sources)] = rows[sources]
    with np.errstate(over="ignore"):
        rows = np.nan_to_num(rows + np.float32(draw(offsets)))
    return rows[:size], rows[size:], draw(st.integers(0, size))


@pytest.mark.parametrize(
    ("elements", "sizes"),
    [
        pytest.param(any_float32, SMALL, id="any float32"),
        pytest.param(few_values, SMALL, id="ties that float64 breaks"),
        pytest.param(grid, SMALL, id="ties on a grid"),
        pytest.param(few_values, BlockSizes(), id="blocks of the usual sizes"),
    ],
)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_picks_follow_exact_arithmetic_and_ties_go_to_the_lowest_index(data, elements, sizes):
    assert_exact(*data.draw(selections(elements)), sizes=sizes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e3, 1e6]))
def test_collinear_points_are_picked_as_brute_force_picks_them(seed, offset):
    random = np.random.default_rng(seed)
    direction = random.standard_normal(3)
    pool = (offset + random.integers(-6, 7, 16)[:, None] * direction).astype(np.float32)
    assert_exact(pool, pool[:2] + np.float32(0.5), 16)


def test_rows_that_are_equally_far_tie_though_their_float64_sums_differ():
    row = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    pool = np.stack([np.random.default_rng(i).permutation(row) for i in range(40)])
    origin = np.zeros((1, 7), np.float32)
    sums = euclidean.squared_distances(pool, np.repeat(origin, 40, axis=0))
    assert sums.argmax() != 0
    assert_exact(pool, origin, 5)
    assert_exact(pool, origin, 5, sizes=BlockSizes())


CENTRES = 3 * np.random.default_rng(1).standard_normal((20, 12))
KINDS = {
    "gaussian": lambda rows: rows,
    "clustered": lambda rows: rows / 20 + CENTRES[np.arange(len(rows)) % 20, : rows.shape[1]],
    "far apart": lambda rows: rows + 1e6 * (np.arange(len(rows)) % 2)[:, None],
    "offset": lambda rows: rows + 3e5,
    "small integers": np.floor,
    "bytes": lambda rows: np.floor(rows * 256) % 256,
    "tenths": lambda rows: (rows > 0) * 0.1,
    "with an outlier": lambda rows: np.where(np.arange(len(rows))[:, None] == 3, 1e25, rows),
    "tiny": lambda rows: rows * 1e-30,
    "huge": lambda rows: rows * 1e37,
}


def made(kind, size, width):
    return KINDS[kind](np.random.default_rng(0).standard_normal((size, width))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [0, 1, 300])
def test_thousands_of_points_are_picked_as_brute_force_picks_them(kind, known):
    rows = made(kind, 1600, 12)
    pool, labelled = rows[known:], rows[:known]
    result = k_center_greedy(pool, labelled, 150)
    picks, radii = brute_force(pool, labelled, 150, first=int(result.indices[0]))
    if kind == "tenths":  # Ties that the brute force breaks by rounding.
        np.testing.assert_allclose(result.radii, radii, rtol=1e-9)
    else:
        assert result.indices.tolist() == picks
        np.testing.assert_allclose(result.radii, radii, rtol=1e-12)


def test_more_ties_than_the_front_holds_are_resolved_by_index():
    pool = np.eye(40, dtype=np.float32) * np.float32(0.1)
    result = k_center_greedy(pool, np.zeros((1, 40), np.float32), 40, sizes=SMALL)
    assert result.indices.tolist() == list(range(40))
    np.testing.assert_allclose(result.radii, [float(np.float32(0.1))] * 40)


def test_equal_rows_are_picked_in_index_order():
    pool = np.full((1000, 3), 0.1, np.float32)
    assert k_center_greedy(pool, pool[:1], 1000).indices.tolist() == list(range(1000))


@pytest.mark.parametrize("known", [0, 2])
def test_the_seed_draws_the_first_pick_if_nothing_is_labelled(known):
    pool = made("gaussian", 50, 2)
    picks = [k_center_greedy(pool, pool[:known], 9, seed=seed).indices.tolist() for seed in (*range(20), 0)]
    assert picks[0] == picks[-1]
    assert (len({first for first, *_ in picks}) > 5) == (known == 0)


def test_a_budget_of_0_picks_nothing():
    for size in (0, 5):
        result = k_center_greedy(made("gaussian", size, 4), np.empty((0, 4), np.float32), 0)
        assert result.indices.shape == result.radii.shape == (0,)


def test_features_may_be_memory_mapped_or_strided_and_are_left_as_they_were(tmp_path):
    rows = made("gaussian", 700, 6)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = k_center_greedy(rows[300:], rows[:300], 60).indices.tolist()
    assert k_center_greedy(mapped[300:], mapped[:300], 60).indices.tolist() == expected
    strided = np.asfortranarray(rows)
    assert k_center_greedy(strided[300:], strided[:300], 60).indices.tolist() == expected
    np.testing.assert_array_equal(rows, made("gaussian", 700, 6))


@pytest.mark.parametrize("found", [0.0, 0.5, 1.0, "the farthest row"])
def test_wrong_answers_of_the_device_search_do_not_change_the_picks(found):
    random = np.random.default_rng(3)
    pool, labelled = (random.normal(size=(n, 12)).astype(np.float32) for n in (2000, 400))
    expected = k_center_greedy(pool, labelled, 150)

    def make_search(rows_searched, device, check):
        assert device == "cpu"
        assert rows_searched.shape == labelled.shape

        def search(rows):
            if found == "the farthest row":
                return ((rows[:, None].astype(float) - labelled[None]) ** 2).sum(2).argmax(1)
            return np.where(
                random.random(len(rows)) < found, random.integers(0, len(labelled), len(rows)), -1
            )

        return search

    result = k_center_greedy(pool, labelled, 150, make_search=make_search)
    assert result.indices.tolist() == expected.indices.tolist()
    assert result.radii.tolist() == expected.radii.tolist()


@pytest.mark.parametrize(
    ("device", "reason"),
    [("tpu", "DEVICE_UNKNOWN"), ("cuda:x", "DEVICE_UNKNOWN"), ("cuda:99", "DEVICE_UNAVAILABLE")],
)
def test_a_missing_search_device_is_an_error_and_not_replaced_by_the_cpu(device, reason):
    rows = np.zeros((3, 2), np.float32)
    with pytest.raises(DeviceError) as caught:
        k_center_greedy(rows, rows, 1, device=device)
    assert caught.value.reason == reason


def wrong(rows, value):
    rows = rows.copy()
    rows[4, 1] = value
    return rows


GOOD = made("gaussian", 6, 3)


@pytest.mark.parametrize(
    ("pool", "labelled", "budget", "reason"),
    [
        (wrong(GOOD, np.nan), GOOD, 1, "FEATURES_NOT_FINITE"),
        (wrong(GOOD, np.inf), GOOD, 1, "FEATURES_NOT_FINITE"),
        (GOOD, wrong(GOOD, -np.inf), 1, "FEATURES_NOT_FINITE"),
        (GOOD[0], GOOD, 1, "FEATURES_SHAPE"),
        (GOOD, GOOD[:, :2], 1, "FEATURES_SHAPE"),
        (GOOD[:, :0], GOOD[:, :0], 1, "FEATURES_SHAPE"),
        (GOOD.astype(np.float64), GOOD, 1, "FEATURES_DTYPE"),
        (GOOD, GOOD.astype(np.float16), 1, "FEATURES_DTYPE"),
        (GOOD, GOOD, 7, "BUDGET_TOO_LARGE"),
        (GOOD, GOOD, -1, "BUDGET_NEGATIVE"),
    ],
)
def test_unusable_features_are_refused_with_a_reason(pool, labelled, budget, reason):
    for select in (k_center_greedy, lambda pool, *rest: k_center_greedy_in_parts([pool], *rest)):
        with pytest.raises(InvalidRequestError) as refused:
            select(pool, labelled, budget)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("budget", "limit", "error", "reason"),
    [
        (50, 50 * 16, LimitExceededError, "FEATURES_OVER_LIMIT"),
        (201, 2**30, InvalidRequestError, "BUDGET_TOO_LARGE"),
    ],
)
def test_more_picks_than_the_limit_or_the_number_of_rows_are_refused(budget, limit, error, reason):
    pool = made("gaussian", 100, 4)
    with pytest.raises(error) as refused:
        k_center_greedy_in_parts([pool, pool], pool[:0], budget, max_kept_bytes=limit)
    assert refused.value.reason == reason


@pytest.mark.parametrize("known", [0, 20])
def test_parts_cover_the_pool_within_twice_the_greedy_bound_and_say_that_they_are_approximate(known):
    rows = made("clustered", 1500, 4)
    pool, labelled = rows[known:], rows[:known]
    whole = k_center_greedy(pool, labelled, 41)
    parted = k_center_greedy_in_parts((pool[i : i + 400] for i in range(0, len(pool), 400)), labelled, 40)
    assert parted.approximate
    assert len(set(parted.indices.tolist())) == 40
    # The 41st pick of greedy lies at most 2 optima away; the guarantee is 4.
    centres = np.concatenate([labelled, pool[parted.indices]])
    farthest = max(((row - centres) ** 2).sum(axis=1).min() for row in pool) ** 0.5
    assert farthest <= 4 * whole.radii[40]


def test_a_single_part_gives_the_exact_picks():
    pool = made("gaussian", 300, 4)
    parted = k_center_greedy_in_parts([pool[5:]], pool[:5], 40)
    assert parted.indices.tolist() == k_center_greedy(pool[5:], pool[:5], 40).indices.tolist()


def test_parts_smaller_than_the_budget_are_kept_whole():
    pool = made("gaussian", 30, 4)
    parted = k_center_greedy_in_parts([pool[:10], pool[10:10], pool[10:]], pool[:0], 30)
    assert sorted(parted.indices.tolist()) == list(range(30))
