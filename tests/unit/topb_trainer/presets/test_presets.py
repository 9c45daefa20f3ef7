"""Presets resolve, the paper's are the paper's, and mistakes in a file are named with their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig, VaeConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data.published import PUBLISHED
from topb_trainer.data.sets import LabelledSet
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ProtocolConfig
from topb_trainer.presets import (
    experiment_preset_names,
    from_mapping,
    load_experiment_preset,
    load_preset,
    preset_names,
)
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import task_losses, task_outputs, train_task
from topb_trainer.vaal import train_vaal


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_the_manifest_of_a_bundle(name: str) -> None:
    config = load_preset(name)
    assert from_mapping(TrainConfig, config.as_dict(), "a manifest") == config
    assert (config == TrainConfig()) == (name == "paper")


def test_a_preset_can_be_a_toml_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "seed = 3\n[task]\nwidth = 8\nlearning_rate = 1\n"
        "[vae]\nhidden = [9, 8, 7]\n[image]\nheight = 5\nwidth = 6"
    )
    assert load_preset(str(tmp_path / "mine.toml")) == TrainConfig(
        seed=3,
        task=TaskConfig(width=8, learning_rate=1.0),
        vae=VaeConfig(hidden=(9, 8, 7)),
        image=ImageConfig(5, 6),
    )


@pytest.mark.parametrize(
    ("text", "match", "reason"),
    [
        ("sed = 3", r"sed is not a setting\. Did you mean seed\?", "UNKNOWN_SETTING"),
        (
            "[task]\nepoch = 3",
            r"task\.epoch is .* mean epochs\? The settings are width, stem,",
            "UNKNOWN_SETTING",
        ),
        ("[task]\nx = 3", r"task\.x is not a setting\. The settings are width, stem", "UNKNOWN_SETTING"),
        ("[task]\nepochs = '3'", r"task\.epochs is '3'\. .* integer", "INVALID_SETTING"),
        ("[task]\nepochs = true", r"task\.epochs is True\. .* integer", "INVALID_SETTING"),
        ("[task]\nepochs = 3.0", r"task\.epochs is 3\.0\. .* integer", "INVALID_SETTING"),
        ("[task]\nepochs = 2030-01-01", r"task\.epochs is '2030-01-01'\. .* integer", "INVALID_SETTING"),
        ("[task]\nhorizontal_flip = 1", r"task\.horizontal_flip is 1\. .* boolean", "INVALID_SETTING"),
        ("[task]\nstem = 'x'", r"task\.stem is 'x'\. .* 'auto', 'cifar' or 'imagenet'", "INVALID_SETTING"),
        ("[image]\nresize = 'unspecified'", r"'unspecified'\. .* 'stretch' or 'cover_and", "INVALID_SETTING"),
        ("[vae]\nhidden = 3", r"vae\.hidden is 3\. .* array", "INVALID_SETTING"),
        ("[vae]\nhidden = [3, 'x']", r"vae\.hidden\.1 is 'x'\. .* integer", "INVALID_SETTING"),
        ("task = 3", r"task is 3\. .* object", "INVALID_SETTING"),
        ("task", "is not TOML", "PRESET_UNREADABLE"),
        ("[task]\nepochs = 0", r"task\.epochs is 0; expected at least 1", "INVALID_CONFIGURATION"),
    ],
)
def test_the_error_for_a_mistake_in_a_preset_names_the_setting(
    text: str, match: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=match) as caught:
        load_preset(str(tmp_path / "mine.toml"))
    assert caught.value.reason == reason


def test_the_error_for_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match="no preset 'papr'; expected one of head, paper, small,"
    ) as caught:
        load_preset("papr")
    assert caught.value.reason == "PRESET_NOT_FOUND"


PAPER = ("cifar10", "cifar100", "svhn", "caltech256")


def test_every_published_data_set_has_its_presets() -> None:
    names = experiment_preset_names()
    assert {load_experiment_preset(name).data for name in names} == set(PUBLISHED)
    assert {f"{kind}-{data}" for kind in ("paper", "small") for data in PAPER} <= set(names)


def test_a_preset_cannot_set_what_an_experiment_sets_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train.cotrain]\nadversary = true")
    with pytest.raises(ConfigurationError, match=r"train\.cotrain\.adversary is True, but .* --methods"):
        load_experiment_preset(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("data", PAPER)
def test_the_paper_presets_change_no_default_setting(data: str) -> None:
    preset = load_experiment_preset(f"paper-{data}")
    assert preset.data == data
    assert preset.protocol == ProtocolConfig(0.10, 0.05, 0.40, None, None)
    assert preset.train == TrainConfig()  # which test_config.py compares with the paper


@pytest.mark.slow
@pytest.mark.parametrize("name", experiment_preset_names())
def test_the_first_training_steps_of_every_preset_run(name: str) -> None:
    preset = load_experiment_preset(name)
    train = preset.train
    size = train.image.height or {"caltech256": 224, "fashion_mnist": 28}.get(str(preset.data), 32)
    images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)
    labelled = LabelledSet(tuple("abcd"), images[:4], np.arange(4), tuple("wxyz"))
    train = replace(
        train,
        task=replace(train.task, epochs=1),
        cotrain=replace(train.cotrain, epochs=1),
        vaal=replace(train.vaal, epochs=1),
    )
    context = RoundContext(train)
    model = train_task(labelled, context)
    known, pool = task_outputs(model, images[:4], context), task_outputs(model, images[4:], context)
    selector = cotrain(known, task_losses(known, labelled.labels), pool, context)
    assert torch.isfinite(selector.score(pool)).all()
    assert not train_vaal(images[:4], images[4:], context).vae.training
