"""The encoder of the paper, a ResNet18, as a frozen encoder or with weights from a file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from topb_trainer.config import TaskConfig
from topb_trainer.encoders.weights import load_weights
from topb_trainer.errors import ConfigurationError
from topb_trainer.models.resnet import Normalisation, ResNet18, stem_for
from topb_trainer.models.task_network import ImageEncoder

_NOT_WEIGHTS = ("classifier.", "normalisation.")


def resnet18(
    task: TaskConfig, normalisation: Normalisation, class_count: int, height: int, width: int
) -> ResNet18:
    """Return a ResNet18 of the configured size, with random weights, or with an encoder's from a file.

    Raises:
        ConfigurationError: with reason WEIGHTS_UNAVAILABLE, WEIGHTS_UNREADABLE or WEIGHTS_MISMATCH.
    """
    if task.weights == "pretrained":
        raise ConfigurationError(
            "task.weights is pretrained, but topb has no weights for its own resnet18; name a model of timm, "
            "such as --task.encoder resnet18.tv_in1k",
            reason="WEIGHTS_UNAVAILABLE",
        )
    model = ResNet18(normalisation, class_count, task.width, stem_for(task.stem, height, width))
    if task.weights not in (None, "random"):
        layers = nn.ModuleDict({"stem": model.stem, "stages": model.stages})
        load_weights(layers, Path(task.weights), ignored=_NOT_WEIGHTS)
    return model


def frozen_resnet18(task: TaskConfig, normalisation: Normalisation, height: int, width: int) -> ImageEncoder:
    """Return the encoder of a ResNet18 alone, in evaluation mode. See `resnet18`."""
    model = resnet18(task, normalisation, 1, height, width).eval()
    pooled = nn.Sequential(model.stem, model.stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return ImageEncoder(normalisation, pooled, model.feature_size)
