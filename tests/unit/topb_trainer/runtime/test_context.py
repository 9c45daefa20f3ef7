"""A round's device is resolved once, and each of its steps has a seed of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from topb_trainer.config import TrainConfig
from topb_trainer.errors import DeviceError
from topb_trainer.runtime.context import RoundContext


@pytest.mark.parametrize("name", ["gpu", "mps", f"cuda:{torch.cuda.device_count()}"])
def test_a_missing_training_device_is_an_error_and_not_replaced_by_the_cpu(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        RoundContext(TrainConfig(device=name))


def test_the_configured_device_is_resolved() -> None:
    assert RoundContext(TrainConfig(device="cpu")).device == torch.device("cpu")


def test_seeds_differ_by_run_round_and_purpose() -> None:
    contexts = [RoundContext(TrainConfig(seed=seed), index) for seed in range(3) for index in range(3)]
    assert len({context.seed(purpose) for context in contexts for purpose in ("task", "vaal")}) == 18
    assert replace(contexts[0], progress=True).seed("task") == contexts[0].seed("task")
