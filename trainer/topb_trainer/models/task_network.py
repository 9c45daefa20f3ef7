"""The task model T: an encoder from images to features, and a classifier of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from topb_trainer.models.mlp import mlp


class TaskNetwork(nn.Module, ABC):
    """T. Its features f are what the selector sees, and what the classifier turns into logits.

    Attributes:
        feature_size: the size of f.
        class_count: the number C of classes.
        classifier: maps f, float (N, feature_size), to logits (N, C).
    """

    feature_size: int
    class_count: int
    classifier: nn.Module

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return f (N, feature_size) and logits (N, C), float32, for the inputs of `encode`."""
        f = self.refine(self.encode(inputs))  # (N, feature_size)
        return f, self.classifier(f)  # (N, feature_size), (N, C)

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the encoder's features, float32 (N, D), for uint8 images (N, H, W, 3)."""

    def refine(self, features: Tensor) -> Tensor:
        """Return f, float (N, feature_size), for the encoder's features (N, D). Here they are the same."""
        return features


class ImageEncoder(nn.Module):
    """An encoder that is a torch module for normalised images, behind its normalisation.

    Attributes:
        feature_size: the number D of features.
    """

    def __init__(self, normalisation: nn.Module, backbone: nn.Module, feature_size: int) -> None:
        """Join both.

        Args:
            normalisation: maps uint8 (N, H, W, 3) to float32 (N, 3, H, W).
            backbone: maps those to features, float32 (N, D), or to a tuple or a dict that begins with them.
            feature_size: D.
        """
        super().__init__()
        self.normalisation = normalisation
        self.backbone = backbone
        self.feature_size = feature_size

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 (N, D), for uint8 images (N, H, W, 3)."""
        return features_of(self.backbone(self.normalisation(images))).float()


def features_of(outputs: object) -> Tensor:
    """Return the features among the outputs of a module.

    Args:
        outputs: features, a tuple of features and logits, or a dict with the key "features".

    Raises:
        TypeError: the outputs are something else.
    """
    if isinstance(outputs, dict):
        outputs = outputs.get("features")
    elif isinstance(outputs, (tuple, list)) and outputs:
        outputs = outputs[0]
    if not isinstance(outputs, Tensor):
        raise TypeError(type(outputs).__name__)
    return outputs


class EncoderNetwork(TaskNetwork):
    """T of any encoder and a linear classifier, which are trained together."""

    def __init__(self, encoder: ImageEncoder, class_count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature_size = encoder.feature_size
        self.class_count = class_count
        self.classifier = nn.Linear(self.feature_size, class_count)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return features, float32 (N, D), for uint8 images (N, H, W, 3)."""
        features: Tensor = self.encoder(inputs)  # (N, D)
        return features


class HeadNetwork(TaskNetwork):
    """T on the features of an encoder that is not trained: hidden layers, if any, and a linear classifier.

    f is the last hidden layer, or the centred and scaled features if there is none.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, class_count: int, hidden: Sequence[int]) -> None:
        """Make a head with new weights.

        Args:
            features: float32 (N, D), the encoder's features of the labelled images. They decide how features
                are centred, and by which one number they are scaled. A number for each of them would be
                unreliable, because labelled images may be few.
            class_count: the number C of classes.
            hidden: sizes of the hidden layers.
        """
        super().__init__()
        exact = features.double()  # (N, D)
        mean = exact.mean(0)  # (D)
        deviation = (exact - mean).square().mean().sqrt()  # ()
        self.register_buffer("shift", mean.float())
        self.register_buffer("scale", deviation.clamp(min=1e-6).float())
        self.class_count = class_count
        self.feature_size = hidden[-1] if hidden else features.shape[1]
        self.hidden = mlp([features.shape[1], *hidden], activate_last=True) if hidden else nn.Identity()
        self.classifier = nn.Linear(self.feature_size, class_count)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the inputs, which are the encoder's features, float32 (N, D)."""
        return inputs

    def refine(self, features: Tensor) -> Tensor:
        """Return f, float32 (N, feature_size), for the encoder's features (N, D)."""
        f: Tensor = self.hidden((features - self.shift) / self.scale)  # (N, feature_size)
        return f
