"""Each preset of an experiment resolves, says what the paper says, and its first steps run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from topb_trainer.config import TrainConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data.published import PUBLISHED
from topb_trainer.data.sets import LabelledSet
from topb_trainer.experiment.config import ProtocolConfig
from topb_trainer.presets import experiment_preset_names, load_experiment_preset
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import task_losses, task_outputs, train_task
from topb_trainer.vaal import train_vaal

SIZES = {"cifar10": 32, "cifar100": 32, "svhn": 32, "caltech256": 224, "fashion_mnist": 28}
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "caltech256": 256, "fashion_mnist": 10}


def test_there_is_one_for_each_data_set() -> None:
    names = experiment_preset_names()
    assert {load_experiment_preset(name).data for name in names} == set(PUBLISHED)
    for data in ("cifar10", "cifar100", "svhn", "caltech256"):
        assert {f"paper-{data}", f"small-{data}"} <= set(names)


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "svhn", "caltech256"])
def test_the_papers_are_the_papers_to_the_letter(data: str) -> None:
    preset = load_experiment_preset(f"paper-{data}")
    assert preset.data == data
    assert preset.protocol == ProtocolConfig(0.10, 0.05, 0.40, None, None)
    assert preset.train == TrainConfig()
    task, beside, vaal = preset.train.task, preset.train.cotrain, preset.train.vaal
    assert (task.width, task.epochs, task.batch_size, task.learning_rate) == (64, 100, 128, 5e-4)
    assert task.horizontal_flip
    assert (beside.epochs, beside.batch_size, beside.learning_rate) == (100, 128, 5e-4)
    assert (beside.beta, beside.ranking_weight, beside.margin) == (1, 10, 0.1)
    assert vaal.epochs == 100


@pytest.mark.slow
@pytest.mark.parametrize("name", experiment_preset_names())
def test_its_first_steps_run(name: str) -> None:
    preset = load_experiment_preset(name)
    assert preset.data is not None
    train = preset.train
    size = train.image.height or SIZES[preset.data]
    images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)
    classes = tuple(str(i) for i in range(CLASSES[preset.data]))
    labelled = LabelledSet(tuple("abcd"), images[:4], np.arange(4), classes)
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
