from __future__ import annotations

import math
import pkgutil
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from support import reference_selection
from topb_scorer import strategies
from topb_scorer.errors import InvalidRequestError
from topb_scorer.scoring.scored_rows import ScoredRows, scored_rows
from topb_scorer.strategies import PointwiseStrategy, SetBasedStrategy, configured, names, served_by
from topb_scorer.strategies.options import option, parsed
from topb_scorer.strategies.strategy import Shortlist

pytestmark = pytest.mark.scorer

OUTPUTS = ("score", "probabilities", "features")
# Modules of the package that hold no strategy of their own.
SHARED = {"cluster_density", "diversity", "options", "registry", "strategy"}
POINTWISE = tuple(name for name in names() if isinstance(configured(name, {}), PointwiseStrategy))


def random_rows(count: int = 200, *, classes: int = 7) -> tuple[ScoredRows, NDArray[np.float64]]:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, 0.3), count).astype(np.float32)
    score = rng.random(count, np.float32)
    ids = ["é", "e", "日本", "", " ", *(f"id-{i}" for i in range(count))][:count]
    rows = scored_rows(ids, {"score": score, "probabilities": probabilities}, {})
    return rows, probabilities.astype(np.float64)


def acquired(strategy: str, rows: ScoredRows, seed: int = 0) -> NDArray[np.float64]:
    pointwise = configured(strategy, {})
    assert isinstance(pointwise, PointwiseStrategy)
    return pointwise.acquisition(rows, seed=seed)


def test_every_strategy_module_defines_the_strategy_of_its_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(strategies.__path__)}
    assert names() == tuple(sorted(modules - SHARED))
    assert {"aalu", "random"} <= set(POINTWISE)
    assert isinstance(configured("core_set", {}), SetBasedStrategy)


def test_a_models_own_score_serves_only_the_method_that_it_declares() -> None:
    own = {name for name in names() if "score" in configured(name, {}).needs}
    assert own >= {"aalu", "vaal"}
    for declared in (frozenset({"aalu"}), frozenset({"vaal", "random"}), frozenset({"random"})):
        assert served_by(declared, OUTPUTS) & own == declared & own
        assert served_by(declared, OUTPUTS) - own == set(names()) - own


@pytest.mark.parametrize("missing", OUTPUTS)
def test_a_strategy_that_needs_an_output_is_served_only_by_models_that_have_it(missing: str) -> None:
    served = served_by(frozenset(names()), set(OUTPUTS) - {missing})
    assert served == {name for name in names() if missing not in configured(name, {}).needs}


def test_the_error_for_an_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match="'no_such'") as caught:
        configured("no_such", {})
    assert [name for name in names() if name not in str(caught.value)] == []
    assert caught.value.reason == "STRATEGY_UNKNOWN"
    assert caught.value.metadata == {"strategy": "no_such"}


@pytest.mark.parametrize("classes", [1, 2, 7, 100])
@pytest.mark.parametrize("strategy", POINTWISE)
def test_acquisition_scores_follow_their_definitions(strategy: str, classes: int) -> None:
    rows, probabilities = random_rows(classes=classes)
    by_seed = {}
    for seed in (0, 3, 2**64 - 1):
        by_seed[seed] = acquired(strategy, rows, seed)
        assert by_seed[seed].dtype == np.float64
        expected = [
            reference_selection.acquisition(strategy, float(rows.score[row]), probabilities[row], id_, seed)
            for row, id_ in enumerate(rows.ids)
        ]
        np.testing.assert_allclose(by_seed[seed], expected, rtol=1e-12, atol=1e-15)
    assert np.array_equal(by_seed[0], by_seed[3]) == (strategy != "random")
    assert acquired(strategy, random_rows(0)[0]).shape == (0,)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("entropy", [0, math.log(2), math.log(3), 0.5 * math.log(12)]),
        ("least_confidence", [0, 1 / 2, 2 / 3, 1 / 2]),
        ("margin", [0, 1, 1, 1 - 1 / 3]),
    ],
)
def test_the_least_certain_prediction_has_the_largest_score(strategy: str, expected: list[float]) -> None:
    probabilities = [
        [1, 0, 0, 0],
        [1 / 2, 1 / 2, 0, 0],
        [1 / 3, 1 / 3, 1 / 3, 0],
        [1 / 2, 1 / 6, 1 / 6, 1 / 6],
    ]
    outputs = {"score": np.zeros(4, np.float32), "probabilities": np.array(probabilities, np.float32)}
    values = acquired(strategy, scored_rows(list("abcd"), outputs, {}))
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_random_scores_are_uniformly_distributed() -> None:
    drawn = acquired("random", random_rows(20_000)[0])
    counts, _ = np.histogram(drawn, bins=50, range=(0, 1))
    # The quantile 0.9999 of χ² with 49 degrees of freedom is 95.
    assert ((counts - 400) ** 2 / 400).sum() < 95


@pytest.mark.parametrize("strategy", POINTWISE)
def test_the_score_of_a_row_does_not_depend_on_other_rows(strategy: str) -> None:
    rows, _ = random_rows(40)
    whole = acquired(strategy, rows, 9)
    columns = {name: column for name, column in vars(rows).items() if name != "skips"}
    for row in range(40):
        alone = ScoredRows(skips={}, **{name: column[row : row + 1] for name, column in columns.items()})
        assert acquired(strategy, alone, 9)[0] == whole[row]


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
def test_an_invalid_strategy_option_is_refused(strategy: str, options: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        configured(strategy, options)
    assert caught.value.reason == reason


def test_strategy_options_are_parsed_from_text() -> None:
    diversified = configured("entropy", {"diversify": "5.0", "min_distance": "1e-1"})
    assert isinstance(diversified, SetBasedStrategy)
    assert diversified.shortlist == Shortlist(configured("entropy", {}), 5)
    assert vars(diversified)["min_distance"] == 0.1
    assert vars(diversified)["score_weight"] == 0.0
    assert vars(configured("prob_cover", {"radius": "2"}))["radius"] == 2.0


def test_an_option_without_a_default_is_required() -> None:
    @dataclass(frozen=True)
    class Demanding:
        neighbours: int = option("How many neighbours count.", kind=int, least=1)

    assert parsed(Demanding, "demanding", {"neighbours": "3"}) == {"neighbours": 3}
    with pytest.raises(InvalidRequestError, match="neighbours") as caught:
        parsed(Demanding, "demanding", {})
    assert caught.value.reason == "STRATEGY_OPTION_UNKNOWN"
