"""Training functions that spawned processes can import."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topb_trainer.errors import TrainingDivergedError
from topb_trainer.runtime.data_parallel import ProcessGroup


def descend(model: nn.Module, images: Tensor, device: torch.device, group: ProcessGroup) -> None:
    """Take three steps of gradient descent on the mean of (w·x)². The 11 images do not split evenly."""
    wrapped = group.wrap(model, device)
    for _ in range(3):
        own = group.share(torch.arange(len(images)))
        values = wrapped(images[own].flatten(1).float() / 255)
        loss = values.square().mean() * group.loss_weight(len(own), len(images))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    total = group.sum(torch.tensor([float(len(own))]))
    assert total.item() == len(images)


def diverge(model: nn.Module, images: Tensor, device: torch.device, group: ProcessGroup) -> None:
    raise TrainingDivergedError("the task model", 7)


def fail_in_one(model: nn.Module, images: Tensor, device: torch.device, group: ProcessGroup) -> None:
    if group.rank == 1:
        raise ZeroDivisionError("only here")
    group.sum(torch.zeros(1))
