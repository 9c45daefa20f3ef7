"""Settings: the paper's by default, presets over them, and nothing unknown or impossible taken in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from topb_trainer.config import CotrainConfig, ImageConfig, TaskConfig, TrainConfig, VaeConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.presets import from_mapping, load_preset, preset_names


def test_the_defaults_are_the_paper_s() -> None:
    config = TrainConfig()
    assert (config.task.width, config.task.epochs, config.task.batch_size) == (64, 100, 128)
    assert (config.cotrain.epochs, config.cotrain.batch_size) == (100, 128)
    assert config.task.learning_rate == config.cotrain.learning_rate == 5e-4
    assert (config.cotrain.beta, config.cotrain.ranking_weight, config.cotrain.margin) == (1, 10, 0.1)
    assert config.task.horizontal_flip
    assert len(config.vae.hidden) == len(config.assistant.hidden) == 2
    assert load_preset("paper") == config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves(name: str) -> None:
    config = load_preset(name)
    assert from_mapping(TrainConfig, json.loads(json.dumps(without_none(config.as_dict()))), "it") == config


def without_none(settings: dict) -> dict:
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if value is not None
    }


def preset(tmp_path: Path, text: str) -> TrainConfig:
    (tmp_path / "mine.toml").write_text(text)
    return load_preset(str(tmp_path / "mine.toml"))


def test_a_preset_may_be_a_file_of_one_s_own(tmp_path: Path) -> None:
    config = preset(
        tmp_path,
        "seed = 3\n[task]\nwidth = 8\nlearning_rate = 1\n"
        "[vae]\nhidden = [9, 8, 7]\n[image]\nheight = 5\nwidth = 6",
    )
    assert config == TrainConfig(
        seed=3,
        task=TaskConfig(width=8, learning_rate=1.0),
        vae=VaeConfig(hidden=(9, 8, 7)),
        image=ImageConfig(5, 6),
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sed = 3", "unknown setting 'sed'; there are seed, device"),
        ("[task]\nepoch = 3", "task: unknown setting 'epoch'; there are width, stem, epochs"),
        ("[task]\nepochs = '3'", "epochs is '3'; expected a whole number"),
        ("[task]\nepochs = true", "epochs is True; expected a whole number"),
        ("[task]\nepochs = 3.0", "epochs is 3.0; expected a whole number"),
        ("[task]\nhorizontal_flip = 1", "horizontal_flip is 1; expected true or false"),
        ("[task]\nstem = 'small'", "stem is one of auto, cifar, imagenet; not 'small'"),
        ("[vae]\nhidden = 3", "hidden is 3; expected a list"),
        ("[vae]\nhidden = [3, 'x']", "hidden is 'x'; expected a whole number"),
        ("task = 3", "task is 3; expected a table of settings"),
        ("task", "is not TOML"),
    ],
)
def test_a_preset_that_sets_what_there_is_not_is_refused(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=match):
        preset(tmp_path, text)


def test_a_preset_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="no preset 'papr': neither one of paper, small nor a file"):
        load_preset("papr")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TaskConfig(epochs=0), r"task.epochs is at least 1; not 0"),
        (lambda: TaskConfig(batch_size=1), r"task.batch_size is at least 2; not 1"),
        (lambda: TaskConfig(learning_rate=0), r"task.learning_rate is above 0"),
        (lambda: CotrainConfig(batch_size=127), r"even and at least 2; not 127"),
        (lambda: CotrainConfig(margin=-0.1), r"at least 0; not 1.0, 10.0, -0.1"),
        (
            lambda: CotrainConfig(adversary=False, ranking=False),
            r"no loss is left to train the assistant",
        ),
        (lambda: VaeConfig(hidden=()), r"vae.hidden is a list of sizes"),
        (lambda: ImageConfig(height=32), r"image.width together"),
        (lambda: ImageConfig(height=0, width=3), r"at least 1; not 0"),
        (lambda: TrainConfig(seed=-1), r"unsigned 64-bit"),
    ],
)
def test_impossible_settings_are_refused(make, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        make()
    assert caught.value.reason == "INVALID_CONFIGURATION"
