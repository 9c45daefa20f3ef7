from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from support import reference_selection
from topb_scorer.errors import InvalidRequestError
from topb_scorer.scoring.score_log import ScoredRows, scored_rows
from topb_scorer.selecting.spec import DEFAULT_STRATEGY
from topb_scorer.strategies import PointwiseStrategy, SetBasedStrategy, configured, names, served_by
from topb_scorer.strategies.strategy import Shortlist

pytestmark = pytest.mark.scorer

POINTWISE = ("aalu", "entropy", "least_confidence", "margin", "random", "vaal")


def random_rows(
    count: int = 200, *, classes: int = 7, concentration: float = 0.3
) -> tuple[ScoredRows, NDArray[np.float64]]:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, concentration), count).astype(np.float32)
    score = rng.random(count, np.float32)
    rows = scored_rows(
        [f"id-{i}" for i in range(count)], {"score": score, "probabilities": probabilities}, {}
    )
    return rows, probabilities.astype(np.float64)


def rows_named(ids: list[str]) -> ScoredRows:
    count = len(ids)
    return scored_rows(
        ids, {"score": np.zeros(count, np.float32), "probabilities": np.full((count, 2), 0.5, np.float32)}, {}
    )


def acquired(strategy: str, rows: ScoredRows, seed: int = 0) -> NDArray[np.float64]:
    pointwise = configured(strategy, {})
    assert isinstance(pointwise, PointwiseStrategy)
    return pointwise.acquisition(rows, seed=seed)


def draws(ids: list[str], seed: int) -> NDArray[np.float64]:
    return acquired("random", rows_named(ids), seed)


def test_every_file_of_the_package_is_a_strategy() -> None:
    set_based = ("badge", "core_set", "prob_cover", "typiclust")
    assert names() == tuple(sorted((*POINTWISE, *set_based)))
    assert tuple(n for n in names() if isinstance(configured(n, {}), SetBasedStrategy)) == set_based


def test_the_default_is_the_papers_own() -> None:
    assert configured(DEFAULT_STRATEGY, {}).name == "aalu"


def test_a_models_own_score_serves_only_the_method_that_it_declares() -> None:
    own = {"aalu", "vaal"}
    for declared in (frozenset({"aalu"}), frozenset({"vaal", "random"}), frozenset({"random"})):
        assert served_by(declared) & own == declared & own
        assert served_by(declared) - own == set(names()) - own


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"'bald'.*entropy, least_confidence, margin") as caught:
        configured("bald", {})
    assert caught.value.reason == "STRATEGY_UNKNOWN"
    assert caught.value.metadata == {"strategy": "bald"}


@pytest.mark.parametrize("classes", [1, 2, 7, 100])
@pytest.mark.parametrize("strategy", POINTWISE)
def test_acquisition_is_what_the_definition_gives(strategy: str, classes: int) -> None:
    rows, probabilities = random_rows(classes=classes)
    values = acquired(strategy, rows, 3)
    assert values.dtype == np.float64
    expected = [
        reference_selection.acquisition(strategy, float(rows.score[row]), probabilities[row], id_, 3)
        for row, id_ in enumerate(rows.ids)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("strategy", ["entropy", "least_confidence", "margin"])
def test_the_least_certain_prediction_is_worth_most(strategy: str) -> None:
    probabilities = np.array([[1, 0, 0], [0.6, 0.3, 0.1], [1 / 3] * 3, [0.9, 0.05, 0.05]], np.float32)
    rows = scored_rows(list("abcd"), {"score": np.zeros(4, np.float32), "probabilities": probabilities}, {})
    values = acquired(strategy, rows, 0)
    assert np.argsort(-values).tolist() == [2, 1, 3, 0]
    assert values[0] == 0
    assert values[2] == pytest.approx(
        math.log(3) if strategy == "entropy" else (2 / 3 if strategy == "least_confidence" else 1)
    )


def test_margin_and_least_confidence_part_where_two_classes_compete() -> None:
    probabilities = np.array([[0.5, 0.5, 0, 0], [0.4, 0.2, 0.2, 0.2]], np.float32)
    rows = scored_rows(
        ["two", "four"], {"score": np.zeros(2, np.float32), "probabilities": probabilities}, {}
    )
    assert np.argmax(acquired("margin", rows, 0)) == 0
    assert np.argmax(acquired("least_confidence", rows, 0)) == 1


@pytest.mark.parametrize("strategy", [name for name in POINTWISE if name != "random"])
def test_only_random_draws_from_the_seed(strategy: str) -> None:
    rows, _ = random_rows()
    assert np.array_equal(acquired(strategy, rows, 0), acquired(strategy, rows, 1))


@pytest.mark.parametrize("strategy", POINTWISE)
def test_rows_are_valued_one_by_one(strategy: str) -> None:
    rows, _ = random_rows(40)
    whole = acquired(strategy, rows, 9)
    for row in range(40):
        alone = ScoredRows(
            ids=[rows.ids[row]],
            skips={},
            **{
                name: getattr(rows, name)[row : row + 1]
                for name in ("score", "entropy", "margin", "confidence", "predicted_class")
            },
        )
        assert acquired(strategy, alone, 9)[0] == whole[row]


def test_random_is_uniform() -> None:
    drawn = draws([f"image-{i}.jpg" for i in range(20_000)], seed=0)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=50, range=(0, 1))
    # Chi-squared with 49 degrees of freedom: 95 is its quantile 0.9999.
    assert ((counts - 400) ** 2 / 400).sum() < 95
    assert len(np.unique(drawn)) == 20_000
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03


def test_random_follows_the_id_and_not_its_place() -> None:
    ids = [f"{i}" for i in range(500)]
    order = np.random.default_rng(0).permutation(500)
    shuffled = draws([ids[i] for i in order], seed=4)
    assert np.array_equal(shuffled, draws(ids, seed=4)[order])


def test_other_seeds_draw_independently() -> None:
    ids = [f"{i}" for i in range(5_000)]
    by_seed = [draws(ids, seed) for seed in (0, 1, 2, 255, 256, 2**63, 2**64 - 1)]
    for i, first in enumerate(by_seed):
        for second in by_seed[i + 1 :]:
            assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_random_takes_ids_of_any_script_and_none() -> None:
    assert len(set(draws(["é", "e", "日本", "", " "], seed=0).tolist())) == 5
    assert draws([], seed=0).shape == (0,)


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("core_set", {"diversify": "2"}, "STRATEGY_OPTION_UNKNOWN"),
        ("aalu", {"diversity": "2"}, "STRATEGY_OPTION_UNKNOWN"),
        ("aalu", {"min_distance": "1"}, "STRATEGY_OPTION_UNKNOWN"),
        ("aalu", {"diversify": "0"}, "OPTION_OUT_OF_RANGE"),
        ("aalu", {"diversify": "1.5"}, "OPTION_OUT_OF_RANGE"),
        ("aalu", {"diversify": "many"}, "OPTION_OUT_OF_RANGE"),
        ("aalu", {"diversify": "2", "score_weight": "1.1"}, "OPTION_OUT_OF_RANGE"),
        ("aalu", {"diversify": "2", "min_distance": "nan"}, "OPTION_OUT_OF_RANGE"),
        ("prob_cover", {"radius": "-1"}, "OPTION_OUT_OF_RANGE"),
        ("prob_cover", {"radius": "inf"}, "OPTION_OUT_OF_RANGE"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    strategy: str, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        configured(strategy, options)
    assert caught.value.reason == reason


def test_options_are_read_from_text() -> None:
    diversified = configured("entropy", {"diversify": "5.0", "min_distance": "1e-1"})
    assert isinstance(diversified, SetBasedStrategy)
    assert diversified.shortlist == Shortlist(configured("entropy", {}), 5)
    assert vars(diversified)["min_distance"] == 0.1
    assert vars(diversified)["score_weight"] == 0.0
    assert vars(configured("prob_cover", {"radius": "2"}))["radius"] == 2.0
