"""Ways to train that processes started anew can import."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topb_trainer.errors import TrainingDivergedError
from topb_trainer.runtime.data_parallel import Team


def descend(model: nn.Module, images: Tensor, device: torch.device, team: Team) -> None:
    """Three steps of gradient descent on the mean of (w·x)²; 11 images do not part evenly."""
    joined = team.joined(model, device)
    for _ in range(3):
        own = team.share(torch.arange(len(images)))
        values = joined(images[own].flatten(1).float() / 255)
        loss = values.square().mean() * team.weight(len(own), len(images))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    total = team.summed(torch.tensor([float(len(own))]))
    assert total.item() == len(images)


def diverge(model: nn.Module, images: Tensor, device: torch.device, team: Team) -> None:
    raise TrainingDivergedError("the task model", 7)


def fail_in_one(model: nn.Module, images: Tensor, device: torch.device, team: Team) -> None:
    if team.rank == 1:
        raise ZeroDivisionError("only here")
    team.summed(torch.zeros(1))
