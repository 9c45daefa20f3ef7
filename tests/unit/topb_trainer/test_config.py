"""The defaults are the paper's, and impossible settings are refused."""

from __future__ import annotations

import pytest

from topb_trainer.config import CotrainConfig, ImageConfig, TaskConfig, TrainConfig, VaalConfig, VaeConfig
from topb_trainer.errors import ConfigurationError


def test_the_defaults_are_the_papers() -> None:
    config, task = TrainConfig(), TrainConfig().task.resolved()
    assert (task.encoder, task.train, task.schedule) == ("resnet18", "all", "constant")
    assert (task.width, task.epochs, task.batch_size) == (64, 100, 128)
    assert (config.cotrain.epochs, config.cotrain.batch_size) == (100, 128)
    assert task.learning_rate == config.cotrain.learning_rate == 5e-4
    assert (config.cotrain.beta, config.cotrain.ranking_weight, config.cotrain.margin) == (1, 10, 0.1)
    assert task.horizontal_flip
    assert len(config.vae.hidden) == len(config.assistant.hidden) == 2


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TaskConfig(epochs=0), r"task.epochs is 0; expected at least 1"),
        (lambda: TaskConfig(batch_size=1), r"task.batch_size is 1; expected at least 2"),
        (lambda: TaskConfig(learning_rate=0), r"task.learning_rate is 0; expected a number above 0"),
        (lambda: CotrainConfig(batch_size=127), r"is 127; expected an even number"),
        (lambda: CotrainConfig(margin=-0.1), r"1.0, 10.0 and -0.1; expected numbers of at least 0"),
        (lambda: CotrainConfig(adversary=False, ranking=False), r"no loss trains the assistant"),
        (lambda: VaeConfig(hidden=()), r"vae.hidden is \(\); expected one or more sizes"),
        (lambda: VaalConfig(channels=(1, 2, 3)), r"vaal.channels is \(1, 2, 3\); expected four sizes"),
        (lambda: VaalConfig(epochs=0), r"vaal.epochs is 0; expected at least 1"),
        (lambda: VaalConfig(hidden=()), r"vaal.hidden is \(\); expected one or more sizes"),
        (lambda: VaalConfig(batch_size=1), r"vaal.batch_size is 1; expected at least 2"),
        (lambda: ImageConfig(height=0, width=3), r"is 0 pixels; expected at least 1"),
        (lambda: TrainConfig(seed=-1), r"seed is -1; expected an integer from 0"),
    ],
)
def test_impossible_settings_are_refused(make, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        make()
    assert caught.value.reason == "INVALID_CONFIGURATION"
