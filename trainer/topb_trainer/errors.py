"""What can go wrong in the trainer, each with a reason that a program can read.

TrainerError
├── ConfigurationError      a setting or a preset cannot be used
├── InvalidDataError        the images or labels cannot be trained on
├── DeviceError             a device that was asked for cannot be used
├── TrainingDivergedError   a loss is no longer finite
└── ExportGateError         the exported graph does not do what the trained model does
"""

from __future__ import annotations


class TrainerError(Exception):
    """Root of the trainer's errors.

    Attributes:
        reason: what went wrong, in UPPER_SNAKE_CASE, stable between versions.
        metadata: the values at fault, by name.
    """

    def __init__(self, message: str, *, reason: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = {name: str(value) for name, value in metadata.items()}


class ConfigurationError(TrainerError):
    """A setting or a preset cannot be used."""


class InvalidDataError(TrainerError):
    """The images or labels cannot be trained on."""


class DeviceError(TrainerError):
    """A device that was asked for cannot be used."""


class TrainingDivergedError(TrainerError):
    """A loss is no longer finite."""

    def __init__(self, what: str, epoch: int) -> None:
        super().__init__(
            f"the loss of {what} is not finite after epoch {epoch}; "
            "a lower learning rate, or standardised features, may help",
            reason="TRAINING_DIVERGED",
            model=what,
            epoch=epoch,
        )


class ExportGateError(TrainerError):
    """The exported graph does not do what the trained model does; no bundle was published."""
