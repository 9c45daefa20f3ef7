"""The settings, index, device and seeds that all steps of a round share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from topb_trainer.config import ResolvedTask, TrainConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.runtime.device import torch_device
from topb_trainer.runtime.seeding import derived_seed

_MAX_INDEX = 2**31 - 1
"""The largest round that the manifest's int32 holds."""


@dataclass(frozen=True)
class RoundContext:
    """The settings of one round, and the values derived from them.

    Raises:
        ConfigurationError: the index is negative, or larger than a manifest can hold.
        DeviceError: the configured device cannot be used.
    """

    config: TrainConfig
    """The settings of the round. The defaults of T that depend on its encoder are filled in."""
    index: int = 0
    """0 for the round that trains on the initial labelled set. Weights and shuffles differ between rounds."""
    progress: bool = False
    """Whether to show progress on standard error."""
    task: ResolvedTask = field(init=False)
    """The settings of T."""
    device: torch.device = field(init=False)
    """The device that `config.device` names."""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= _MAX_INDEX:
            raise ConfigurationError(
                f"the round is {self.index}; expected an integer from 0 to {_MAX_INDEX}",
                reason="INVALID_CONFIGURATION",
            )
        task = self.config.task.resolved()
        object.__setattr__(self, "task", task)
        object.__setattr__(self, "config", replace(self.config, task=task))
        object.__setattr__(self, "device", torch_device(self.config.device))

    def seed(self, purpose: str) -> int:
        """Return the seed of one step of the round, such as "task"."""
        return derived_seed(derived_seed(self.config.seed, "round", self.index), purpose)
