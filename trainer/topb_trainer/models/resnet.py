"""The task model T: ResNet18 (He et al. 2016) of torchvision's blocks, from uint8 images to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn, tensor
from torchvision.models.resnet import BasicBlock

from topb_trainer.config import Stem

SMALL_IMAGE = 64
"""Pixels: up to this height and width the "auto" stem keeps the full resolution."""


class Normalisation(nn.Module):
    """Takes the given mean and deviation per channel, both of values in [0, 1], to 0 and 1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        # One multiplication and one addition: (x / 255 − mean) / deviation.
        self.register_buffer("scale", tensor([1 / (255 * d) for d in deviation]))  # (3)
        self.register_buffer("shift", tensor([-m / d for m, d in zip(mean, deviation, strict=True)]))  # (3)

    def forward(self, images: Tensor) -> Tensor:
        """Returns float32 (N, 3, H, W), channels last in memory, from uint8 (N, H, W, 3)."""
        return (images.float() * self.scale + self.shift).permute(0, 3, 1, 2)


class ResNet18(nn.Module):
    """Four stages of two basic blocks, `width` to 8 × `width` channels; 64 is the paper's width.

    Stems: "cifar" is a 3×3 convolution of stride 1, no pooling; "imagenet" a 7×7 convolution of stride 2 and
    max-pooling, which shrinks images by 4 before the first block: for large images, or cheap studies.
    """

    def __init__(
        self, normalisation: Normalisation, class_count: int, width: int, stem: Literal["cifar", "imagenet"]
    ) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.stem = _cifar_stem(width) if stem == "cifar" else _imagenet_stem(width)
        self.stages = nn.Sequential(
            _stage(width, width, stride=1),
            _stage(width, 2 * width, stride=2),
            _stage(2 * width, 4 * width, stride=2),
            _stage(4 * width, 8 * width, stride=2),
        )
        self.feature_size = 8 * width
        self.class_count = class_count
        self.classifier = nn.Linear(self.feature_size, class_count)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features f (N, 8 × width) and logits (N, C), float32, of uint8 images (N, H, W, 3)."""
        x = self.normalisation(images)  # (N, 3, H, W)
        x = self.stages(self.stem(x))  # (N, 8 × width, h, w)
        features = x.mean((2, 3))  # (N, 8 × width)
        return features, self.classifier(features)


def stem_for(stem: Stem, height: int, width: int) -> Literal["cifar", "imagenet"]:
    """Returns what "auto" stands for at an image size: "cifar" up to 64 × 64 pixels, "imagenet" above."""
    if stem == "auto":
        return "cifar" if max(height, width) <= SMALL_IMAGE else "imagenet"
    return stem


def _cifar_stem(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _imagenet_stem(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))
