"""Encoders as users write them, for `package.module:factory`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 8


class Small(nn.Module):
    """A convolution and a linear classifier: features and logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, SIZE, 3, stride=2)
        self.norm = nn.BatchNorm2d(SIZE)
        self.out = nn.Linear(SIZE, 5)

    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))  # (N, 8)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return features, self.out(features)


class Alone(Small):
    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class Named(Small):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.out(self.features(images)), "features": self.features(images)}


class Spatial(Small):
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class Mixing(Small):
    """Normalises each batch by its own statistics, even in evaluation mode."""

    def features(self, images: Tensor) -> Tensor:
        x = nn.functional.batch_norm(self.conv(images), None, None, training=True)
        return x.relu().mean((2, 3))


class NotFinite(Small):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images).log()


class Text(Small):
    def forward(self, images: Tensor) -> str:
        return f"features of {len(images)} images"


def fails() -> nn.Module:
    raise RuntimeError("no checkpoint here")


def gives_a_list() -> list[int]:
    return [1]
