"""VAAL's networks (Sinha et al. 2019): a convolutional VAE on images, a discriminator on its latent space.

Sizes and layers are those of its public code. The scoring path is a graph like any other: images to score,
beside the task model's probabilities and features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from topb_trainer.models.mlp import mlp
from topb_trainer.models.resnet import SMALL_IMAGE, Normalisation, ResNet18

_STRIDES = 16
"""Pixels of an image that become one of the encoder's last map: four convolutions of stride 2."""

_HALF = (0.5, 0.5, 0.5)
"""Mean and deviation that take pixels to [−1, 1]."""


class ImageVae(nn.Module):
    """Encoder 3–128–256–512–1024 of stride-2 convolutions and mirrored decoder, at the published `channels`.

    Images over 64 pixels are averaged down to at most 64, as the published code shrinks ImageNet's; then
    padded with grey to a multiple of 16, as four halvings need. That is what the VAE sees and reconstructs.
    """

    def __init__(self, height: int, width: int, channels: Sequence[int], latent_size: int) -> None:
        super().__init__()
        self.normalisation = Normalisation(_HALF, _HALF)
        self.shrink = -(-max(height, width) // SMALL_IMAGE)
        seen = (height // self.shrink, width // self.shrink)
        self.size = tuple(-(-side // _STRIDES) * _STRIDES for side in seen)
        """Height and width that the VAE sees."""
        self._padding = (0, self.size[1] - seen[1], 0, self.size[0] - seen[0])
        self._top = (channels[-1], self.size[0] // 8, self.size[1] // 8)
        encoder: list[nn.Module] = []
        for inputs, outputs in pairwise((3, *channels)):
            encoder += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        flat = channels[-1] * (self.size[0] // _STRIDES) * (self.size[1] // _STRIDES)
        self.mean = nn.Linear(flat, latent_size)
        self.log_variance = nn.Linear(flat, latent_size)
        # Three doublings from an eighth of the size, and a 1×1 convolution to colours.
        self.decoder_input = nn.Linear(latent_size, self._top[0] * self._top[1] * self._top[2])
        decoder: list[nn.Module] = []
        for inputs, outputs in pairwise(reversed(channels)):
            decoder += [
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.decoder = nn.Sequential(*decoder, nn.ConvTranspose2d(channels[0], 3, 1))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def view(self, images: Tensor) -> Tensor:
        """Returns what the VAE sees, float32 (N, 3, h, w) in [−1, 1], of uint8 images (N, H, W, 3)."""
        x: Tensor = self.normalisation(images)  # (N, 3, H, W)
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink)
        return F.pad(x, self._padding)

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance of z, float (N, Z) each, from views (N, 3, h, w)."""
        hidden = self.encoder(view)  # (N, F)
        return self.mean(hidden), self.log_variance(hidden)

    def encode_mean(self, view: Tensor) -> Tensor:
        """Returns the mean of z, float (N, Z), from views (N, 3, h, w)."""
        mean: Tensor = self.mean(self.encoder(view))
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Returns the reconstructed view, float (N, 3, h, w), from z (N, Z)."""
        reconstruction: Tensor = self.decoder(self.decoder_input(latent).unflatten(1, self._top))
        return reconstruction


class Discriminator(nn.Module):
    """An MLP on z, of three layers if `hidden` has two sizes: is an image of the pool, or labelled?"""

    def __init__(self, latent_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = mlp([latent_size, *hidden, 1])

    def forward(self, latent: Tensor) -> Tensor:
        """Returns logits, float (N), of z (N, Z); their sigmoid is 0 for labelled and 1 for unlabelled."""
        logits: Tensor = self.layers(latent).squeeze(1)
        return logits


class VaalScoringModel(nn.Module):
    """Images to the discriminator's score, and the task model's probabilities and features beside it."""

    strategy = "vaal"
    score_meaning = "the discriminator's: 0 is like the labelled, 1 is like the unlabelled"

    def __init__(self, task_model: ResNet18, vae: ImageVae, discriminator: Discriminator) -> None:
        super().__init__()
        self.task_model = task_model
        self.vae = vae
        self.discriminator = discriminator

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns score (N), probabilities (N, C), features (N, D), float32, of uint8 images (N, H, W, 3)."""
        features, logits = self.task_model(images)  # (N, D), (N, C)
        score = self.discriminator(self.vae.encode_mean(self.vae.view(images))).sigmoid()  # (N)
        return score, logits.softmax(1), features
