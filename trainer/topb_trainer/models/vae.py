"""The variational auto-encoder on the features of the task model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn, randn

from topb_trainer.models.mlp import mlp


class Vae(nn.Module):
    """An encoder f → N(μ, σ²) and a decoder z → f̂, both MLPs.

    With two hidden sizes, the default, each has three layers, as in the paper.
    """

    def __init__(self, feature_size: int, latent_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.trunk = mlp([feature_size, *hidden], activate_last=True)
        # Two halves of the encoder's last layer. Scoring needs only the mean, so the export leaves out the
        # other.
        self.mean = nn.Linear(hidden[-1], latent_size)
        self.log_variance = nn.Linear(hidden[-1], latent_size)
        self.decoder = mlp([latent_size, *reversed(hidden), feature_size])

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of z, float (N, Z) each, for features (N, D)."""
        hidden = self.trunk(features)  # (N, H)
        return self.mean(hidden), self.log_variance(hidden)  # (N, Z) each

    def encode_mean(self, features: Tensor) -> Tensor:
        """Return the mean of z, float (N, Z), for features (N, D)."""
        mean: Tensor = self.mean(self.trunk(features))  # (N, Z)
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstructed features, float (N, D), for z (N, Z)."""
        reconstruction: Tensor = self.decoder(latent)  # (N, D)
        return reconstruction


def sample(mean: Tensor, log_variance: Tensor, generator: Generator) -> Tensor:
    """Draw z ~ N(μ, σ²), float (N, Z), by the reparameterisation trick: gradients reach μ and σ."""
    noise = randn(mean.shape, generator=generator, device=mean.device)  # (N, Z)
    return mean + (0.5 * log_variance).exp() * noise  # (N, Z)
