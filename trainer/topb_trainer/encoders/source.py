"""What all encoders have in common: the images that they expect, and how one gets a module or a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import nn

from topb.image_input import ImageInput
from topb.v1 import bundle_pb2
from topb_trainer.config import ImageConfig, KnownRule
from topb_trainer.errors import ConfigurationError
from topb_trainer.models.resnet import Normalisation
from topb_trainer.models.task_network import ImageEncoder, features_of

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PROBED_IMAGES = 2


@dataclass(frozen=True)
class Preprocessing:
    """The images that an encoder expects. Where it has no value, the settings decide."""

    size: tuple[int, int] | None = None
    """Height and width in pixels."""
    resize: KnownRule | None = None
    mean: tuple[float, ...] = ()
    """Mean of each channel, of values from 0 to 1."""
    deviation: tuple[float, ...] = ()
    """Standard deviation of each channel, likewise."""

    def completing(self, image: ImageConfig) -> ImageConfig:
        """Return the settings, with the values of the encoder where they name none."""
        height, width = image.size or self.size or (None, None)
        named = image.normalisation is not None or image.mean
        mean, deviation = (image.mean, image.deviation) if named else (self.mean, self.deviation)
        resize = image.resize or self.resize
        return replace(image, height=height, width=width, resize=resize, mean=mean, deviation=deviation)


class TorchEncoder(ABC):
    """An encoder that is a torch module. It can be trained as a whole, or stay as it is."""

    preprocessing = Preprocessing()
    """The images that the module expects."""

    @abstractmethod
    def backbone(self, height: int, width: int) -> nn.Module:
        """Return the module with its weights, in evaluation mode. Random weights come from torch's generator.

        It maps normalised images, float32 (N, 3, height, width), to features (N, D), or to a tuple or a dict
        that has them.

        Raises:
            ConfigurationError: the module or its weights cannot be had.
        """

    def build(self, normalisation: Normalisation, height: int, width: int) -> ImageEncoder:
        """Return the encoder for uint8 images (N, height, width, 3), in evaluation mode.

        Raises:
            ConfigurationError: with reason ENCODER_OUTPUT if the module does not give features of rank 2, or
                the reasons of `backbone`.
        """
        backbone = self.backbone(height, width)
        images = torch.zeros(_PROBED_IMAGES, height, width, 3, dtype=torch.uint8)
        return ImageEncoder(normalisation, backbone, _feature_size(backbone, normalisation(images)))


@dataclass(frozen=True)
class GraphEncoder:
    """An encoder that is an ONNX graph. It stays as it is, byte for byte."""

    graph: bytes
    """Maps `images`, uint8 (N, height, width, 3), to `features`, float32 (N, D)."""
    input: ImageInput
    feature_size: int
    """The number D of features."""
    float16: bool = False
    """Whether the graph rounds its features to float16."""
    passed: tuple[bundle_pb2.GateMeasurement, ...] = ()
    """The gates of encoders that the graph has passed before; none if it was never measured."""


Encoder = TorchEncoder | GraphEncoder


def normalisation_moments(image: ImageConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of each channel, or None if they are those of the labelled images."""
    if image.mean:
        return image.mean, image.deviation
    return None if image.normalisation == "labelled" else _IMAGENET


@torch.no_grad()
def _feature_size(backbone: nn.Module, images: torch.Tensor) -> int:
    """Apply the module to normalised images (N, 3, H, W), and return D."""
    took = f"for float32 images {tuple(images.shape)}, the encoder"
    expected = (
        f"expected features of shape ({len(images)}, D), alone, first in a tuple or under the key 'features' "
        "of a dict"
    )
    try:
        outputs = backbone(images)
    except Exception as error:
        # A module of the user raises whatever it likes.
        raise ConfigurationError(
            f"{took} failed: {type(error).__name__}: {error}; check image.height and image.width, and that "
            "the module takes images of rank 4 with three channels first",
            reason="ENCODER_OUTPUT",
        ) from error
    try:
        features = features_of(outputs)
    except TypeError as error:
        raise ConfigurationError(f"{took} gave a {error}; {expected}", reason="ENCODER_OUTPUT") from error
    if features.ndim != 2 or len(features) != len(images) or not features.is_floating_point():
        raise ConfigurationError(
            f"{took} gave {features.dtype} of shape {tuple(features.shape)}; {expected}. Pool spatial "
            "features, for example by their mean",
            reason="ENCODER_OUTPUT",
        )
    return features.shape[1]
