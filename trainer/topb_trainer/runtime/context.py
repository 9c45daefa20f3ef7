"""The settings, index, device and seeds that all steps of a round share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from topb_trainer.config import TrainConfig
from topb_trainer.runtime.device import torch_device
from topb_trainer.runtime.seeding import derived_seed


@dataclass(frozen=True)
class RoundContext:
    """The settings of one round, and the values derived from them.

    Raises:
        DeviceError: the configured device cannot be used.
    """

    config: TrainConfig
    """The resolved settings of the round."""
    index: int = 0
    """0 for the round that trains on the initial labelled set. Weights and shuffles differ between rounds."""
    progress: bool = False
    """Whether to show progress bars on a terminal."""
    device: torch.device = field(init=False)
    """The device that `config.device` names."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", torch_device(self.config.device))

    def seed(self, purpose: str) -> int:
        """Return the seed of one step of the round, such as "task"."""
        return derived_seed(derived_seed(self.config.seed, "round", self.index), purpose)
