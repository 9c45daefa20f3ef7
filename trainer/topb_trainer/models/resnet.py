"""The task model T: a ResNet18 (He et al. 2016) of torchvision's blocks, from uint8 images to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn, tensor
from torchvision.models.resnet import BasicBlock

from topb_trainer.config import Stem
from topb_trainer.models.task_network import TaskNetwork

SMALL_IMAGE = 64
"""Largest height and width, in pixels, at which the stem "auto" keeps the full resolution."""

_VECTOR = 16
"""Numbers in a vector register of AVX-512, in float32."""


class Normalisation(nn.Module):
    """Scales images to mean 0 and deviation 1, given mean and deviation per channel of values in [0, 1]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        # (x / 255 − mean) / deviation, as one multiplication and one addition.
        self.register_buffer("scale", tensor([1 / (255 * d) for d in deviation]))  # (3)
        self.register_buffer("shift", tensor([-m / d for m, d in zip(mean, deviation, strict=True)]))  # (3)

    def forward(self, images: Tensor) -> Tensor:
        """Convert uint8 images (N, H, W, 3) to float32 (N, 3, H, W) with channels last in memory."""
        return (images.float() * self.scale + self.shift).permute(0, 3, 1, 2)  # (N, 3, H, W)


class ResNet18(TaskNetwork):
    """Four stages of two basic blocks each, from `width` to 8 × `width` channels; the usual width is 64.

    The stem "cifar" is a 3×3 convolution with stride 1. The stem "imagenet" is a 7×7 convolution with stride
    2 and max-pooling; it reduces images by a factor of 4 before the first block, which suits large images and
    cheap studies.
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

    def encode(self, inputs: Tensor) -> Tensor:
        """Return features f, float32 (N, D), for uint8 images (N, H, W, 3)."""
        x = self.normalisation(inputs)  # (N, 3, H, W)
        x = self.stages(self.stem(x))  # (N, D, h, w)
        features: Tensor = x.mean((2, 3))  # (N, D)
        return features


class _ShortcutConvolution(nn.Conv2d):
    """A 1×1 convolution with a stride and without a bias."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs (N, outputs, ⌈h / stride⌉, ⌈w / stride⌉) for inputs (N, inputs, h, w)."""
        if self.training and input.device.type == "cpu" and self.in_channels % _VECTOR:
            # On a CPU with AVX-512, the backward pass of torch 2.14 crashes in the strided kernel if channels
            # are last and few: it was seen with 3, 4, 7 and 8 channels of 56 × 56. The same pixels, taken
            # first, give the same result without that kernel.
            rows, columns = self.stride
            return F.conv2d(input[:, :, ::rows, ::columns], self.weight)
        return super().forward(input)


def stem_for(stem: Stem, height: int, width: int) -> Literal["cifar", "imagenet"]:
    """Resolve the stem "auto" for an image size: "cifar" up to 64 × 64 pixels, "imagenet" above."""
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
        shortcut = nn.Sequential(_ShortcutConvolution(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))
