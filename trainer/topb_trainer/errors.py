"""The errors of the trainer. Each has a reason that programs can rely on.

TopbError
└── TrainerError
    ├── ConfigurationError      a setting or a preset cannot be used
    ├── InvalidDataError        the images or labels cannot be trained on
    ├── DeviceError             a requested device cannot be used
    ├── TrainingDivergedError   a loss is no longer finite
    ├── ExportGateError         the exported graph does not reproduce the trained model
    └── ModelImportError        a model cannot be imported as it is
"""

from __future__ import annotations

from pathlib import Path

from topb.errors import TopbError


class TrainerError(TopbError):
    """Base class of the trainer's errors.

    Attributes:
        reason: what went wrong, in UPPER_SNAKE_CASE, stable between versions.
        metadata: the values that caused the error, by name.
    """

    def __init__(self, message: str, *, reason: str, **metadata: object) -> None:
        values = {name: str(value) for name, value in metadata.items()}
        super().__init__(message, reason=reason, metadata=values)


class ConfigurationError(TrainerError):
    """A setting or a preset cannot be used."""


class InvalidDataError(TrainerError):
    """The images or labels cannot be trained on."""


class DeviceError(TrainerError):
    """A requested device cannot be used."""


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
    """The exported graph does not reproduce the trained model; no bundle was published."""

    def with_weights(self, path: Path) -> ExportGateError:
        """Return the error with the file in which the trained weights are kept, and how to use it."""
        return ExportGateError(
            f"{self}. The trained weights are kept in {path}. To export them without training again, repeat "
            f"the command with --weights {path}, with another version of torch or ONNX Runtime, or with a "
            "higher --export.difference-limit",
            reason=self.reason,
            **self.metadata,
            weights=path,
        )


class ModelImportError(TrainerError):
    """A model cannot be imported as it is, or not as the command asked."""
