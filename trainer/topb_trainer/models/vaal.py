"""The networks of VAAL (Sinha et al. 2019): a convolutional VAE on images and a discriminator on its latents.

The default sizes and the layers are taken from its public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from topb_trainer.models.mlp import mlp
from topb_trainer.models.resnet import SMALL_IMAGE, Normalisation

_STRIDES = 16
"""Factor by which the encoder shrinks an image: four convolutions with stride 2."""

_HALF = (0.5, 0.5, 0.5)
"""Mean and deviation that bring pixels to [−1, 1]."""


class ImageVae(nn.Module):
    """An encoder of four convolutions with stride 2 and a mirrored decoder.

    The published channels are 128, 256, 512 and 1024. Images larger than 64 pixels are averaged down to at
    most 64, as the published code does with ImageNet. They are then padded with grey to a multiple of 16,
    because they are halved four times. The result is the view that the VAE encodes and reconstructs.
    """

    def __init__(self, height: int, width: int, channels: Sequence[int], latent_size: int) -> None:
        super().__init__()
        self.normalisation = Normalisation(_HALF, _HALF)
        self.shrink = -(-max(height, width) // SMALL_IMAGE)
        seen = (height // self.shrink, width // self.shrink)
        self.size = tuple(-(-side // _STRIDES) * _STRIDES for side in seen)
        """Height and width of a view."""
        self._padding = (0, self.size[1] - seen[1], 0, self.size[0] - seen[0])
        self._top = (channels[-1], self.size[0] // 8, self.size[1] // 8)
        encoder: list[nn.Module] = []
        for inputs, outputs in pairwise((3, *channels)):
            encoder += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        flat = channels[-1] * (self.size[0] // _STRIDES) * (self.size[1] // _STRIDES)
        self.mean = nn.Linear(flat, latent_size)
        self.log_variance = nn.Linear(flat, latent_size)
        # The decoder starts at an eighth of the size, doubles it three times, and ends with a 1×1
        # convolution.
        self.decoder_input = nn.Linear(latent_size, self._top[0] * self._top[1] * self._top[2])
        decoder: list[nn.Module] = []
        for inputs, outputs in pairwise(reversed(channels)):
            decoder += [
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.decoder = nn.Sequential(*decoder, nn.ConvTranspose2d(channels[0], 3, 1))
        # As in the public code, mean, log-variance and transposed convolutions keep torch's initialisation.
        _initialise(self.encoder, self.decoder_input)

    def view(self, images: Tensor) -> Tensor:
        """Return the views, float32 (N, 3, h, w) in [−1, 1], of uint8 images (N, H, W, 3)."""
        x: Tensor = self.normalisation(images)  # (N, 3, H, W)
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink)  # (N, 3, H / shrink, W / shrink)
        return F.pad(x, self._padding)  # (N, 3, h, w)

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of z, float (N, Z) each, for views (N, 3, h, w)."""
        hidden = self.encoder(view)  # (N, F)
        return self.mean(hidden), self.log_variance(hidden)  # (N, Z) each

    def encode_mean(self, view: Tensor) -> Tensor:
        """Return the mean of z, float (N, Z), for views (N, 3, h, w)."""
        mean: Tensor = self.mean(self.encoder(view))  # (N, Z)
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstructed views, float (N, 3, h, w), for z (N, Z)."""
        top = self.decoder_input(latent).unflatten(1, self._top)  # (N, channels, h / 8, w / 8)
        reconstruction: Tensor = self.decoder(top)  # (N, 3, h, w)
        return reconstruction


class Discriminator(nn.Module):
    """An MLP on z that tells labelled images from unlabelled ones."""

    def __init__(self, latent_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = mlp([latent_size, *hidden, 1])
        _initialise(self.layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits, float (N), for z (N, Z). Their sigmoid is 0 for labelled and 1 for unlabelled."""
        logits: Tensor = self.layers(latent).squeeze(1)  # (N)
        return logits


def _initialise(*modules: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers by Kaiming's rule, and set their biases to 0."""
    for layer in (layer for module in modules for layer in module.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
