"""Each method by its one name: what it trains, and the strategy that it selects with."""

from __future__ import annotations

import pytest

from topb_trainer.config import CotrainConfig, TrainConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.methods import METHODS, assistant_method, methods_named
from topb_trainer.report import paper


@pytest.mark.parametrize(
    ("switches", "name"),
    [
        ({}, "aalu"),
        ({"prediction": False, "ranking": False}, "adv_vae"),
        ({"ranking": False}, "adv_vae_prediction"),
        ({"adversary": False}, "loss_learn"),
        ({"prediction": False}, "adv_vae_loss_learn"),
        ({"adversary": False, "prediction": False}, "loss_learn_without_prediction"),
    ],
)
def test_the_switches_of_co_training_name_the_ablations_of_table_1(
    switches: dict[str, bool], name: str
) -> None:
    method = METHODS[name]
    assert assistant_method(CotrainConfig(**switches)) == method
    assert method.configured(TrainConfig()).cotrain == CotrainConfig(**switches)
    assert method.strategy == "aalu"
    assert method.is_ablation == (name != "aalu")


def test_every_row_of_table_1_is_a_method() -> None:
    assert set(paper.TABLE_1) <= set(METHODS)


def test_the_vaal_methods_set_the_kl_reduction_and_the_others_change_no_setting() -> None:
    assert METHODS["vaal"].configured(TrainConfig()).vaal.kl_reduction == "sum"
    assert METHODS["vaal_mean_kl"].configured(TrainConfig()).vaal.kl_reduction == "mean"
    assert METHODS["vaal"].strategy == METHODS["vaal_mean_kl"].strategy == "vaal"
    for name in ("random", "entropy", "core_set"):
        assert METHODS[name].configured(TrainConfig()) == TrainConfig()
        assert METHODS[name].strategy == name


def test_methods_are_listed_once_each_in_the_given_order() -> None:
    assert [method.name for method in methods_named(["aalu", "random", "aalu"])] == ["aalu", "random"]


@pytest.mark.parametrize("names", [["bald"], []])
def test_an_unknown_method_or_none_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="choose from random, entropy") as caught:
        methods_named(names)
    assert caught.value.reason == "METHOD_UNKNOWN"
