"""Several processes train one model: with the gradients of one process, one result, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from support.training import descend, diverge, fail_in_one
from topb_trainer.config import TaskConfig, TrainConfig
from topb_trainer.data.sets import RoundData
from topb_trainer.errors import ConfigurationError, DeviceError, InvalidDataError, TrainingDivergedError
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.data_parallel import SINGLE_PROCESS, devices_from, train_in_parallel
from topb_trainer.task import accuracy_on, train_task

from ..conftest import differing

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3)).astype(np.uint8)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(12, 1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_take_the_same_steps_as_one(processes: int) -> None:
    alone, together = linear(), linear()
    descend(alone, torch.from_numpy(IMAGES), CPU, SINGLE_PROCESS)
    train_in_parallel(descend, together, IMAGES, CPU, processes)
    assert not torch.equal(together.weight, linear().weight)
    torch.testing.assert_close(together.weight, alone.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.bias, alone.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_raises_the_original_error() -> None:
    with pytest.raises(TrainingDivergedError) as caught:
        train_in_parallel(diverge, linear(), IMAGES, CPU, 2)
    assert caught.value.metadata == {"model": "the task model", "epoch": "7"}


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_of_them() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2 .* only here"):
        train_in_parallel(fail_in_one, linear(), IMAGES, CPU, 2)


@pytest.mark.slow
def test_t_learns_real_digits_and_a_seed_decides_it(digit_round: RoundData) -> None:
    settings = {"width": 8, "epochs": 5, "batch_size": 16, "learning_rate": 2e-3, "horizontal_flip": False}
    context = RoundContext(TrainConfig(seed=1, task=TaskConfig(processes=2, **settings)))
    one, again = (train_task(digit_round.labelled, context) for _ in range(2))
    assert not any(differing(one, again))
    assert not one.training
    assert accuracy_on(one, digit_round.labelled, context) > 0.9


def test_more_processes_than_devices_is_an_error() -> None:
    assert devices_from(CPU, 3) == [CPU] * 3
    with pytest.raises(DeviceError, match=r"task\.processes is 99") as caught:
        devices_from(torch.device("cuda"), 99)
    assert caught.value.reason == "DEVICE_UNAVAILABLE"


def test_too_few_images_or_too_small_batches_for_the_processes_are_refused(digit_round: RoundData) -> None:
    task = TaskConfig(width=4, epochs=1, processes=4)
    few = digit_round.labelled.subset(np.arange(7))
    with pytest.raises(InvalidDataError, match="7 labelled images are too few for 4 processes"):
        train_task(few, RoundContext(TrainConfig(task=task)))
    with pytest.raises(ConfigurationError, match=r"task\.batch_size is \d+; expected at least 8"):
        TaskConfig(batch_size=7, processes=4)
