"""The variational auto-encoder over the task model's features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn, randn

from topb_trainer.models.mlp import mlp


class Vae(nn.Module):
    """Encoder f → N(μ, σ²) and decoder z → f̂, each an MLP of three layers when `hidden` has two sizes."""

    def __init__(self, feature_size: int, latent_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.trunk = mlp([feature_size, *hidden], activate_last=True)
        # The encoder's last layer, in halves: scoring needs the mean alone, and only that is exported.
        self.mean = nn.Linear(hidden[-1], latent_size)
        self.log_variance = nn.Linear(hidden[-1], latent_size)
        self.decoder = mlp([latent_size, *reversed(hidden), feature_size])

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance of z, float (N, Z) each, from float (N, D)."""
        hidden = self.trunk(features)  # (N, H)
        return self.mean(hidden), self.log_variance(hidden)

    def encode_mean(self, features: Tensor) -> Tensor:
        """Returns the mean of z, float (N, Z), from float (N, D)."""
        mean: Tensor = self.mean(self.trunk(features))
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Returns the reconstruction, float (N, D), from float (N, Z)."""
        reconstruction: Tensor = self.decoder(latent)
        return reconstruction


def sample(mean: Tensor, log_variance: Tensor, generator: Generator) -> Tensor:
    """Draws z ~ N(μ, σ²), float (N, Z), so that gradients reach μ and σ (the reparameterisation trick)."""
    noise = randn(mean.shape, generator=generator, device=mean.device)  # (N, Z)
    return mean + (0.5 * log_variance).exp() * noise
