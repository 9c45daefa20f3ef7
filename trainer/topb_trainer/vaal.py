"""VAAL (Sinha, Ebrahimi and Darrell, ICCV 2019): a VAE on images against a discriminator on its latent space.

The method as published, without what its public code does wrong: that scores images at random flips and with
batch norms in training mode; one version of it trains the VAE towards the discriminator's own answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from topb_trainer.config import VaalConfig
from topb_trainer.cotrain import epoch_batches
from topb_trainer.errors import TrainingDivergedError
from topb_trainer.losses import assistant_adversarial_loss, vae_adversarial_loss
from topb_trainer.models.vaal import Discriminator, ImageVae
from topb_trainer.models.vae import sample
from topb_trainer.runtime.device import autocast, resident
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible
from topb_trainer.task import mirrored


@dataclass(frozen=True)
class VaalSelector:
    """What training makes: all between an image and its score."""

    vae: ImageVae
    discriminator: Discriminator


def image_elbo_loss(
    view: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, *, kl_reduction: str
) -> Tensor:
    """What VAAL's VAE minimises to represent images: squared error, averaged over all, and the KL.

    Args:
        view: float (N, 3, h, w).
        reconstruction: float (N, 3, h, w), decoded from z ~ N(μ, σ²).
        mean: float (N, Z), μ.
        log_variance: float (N, Z), log σ².
        kl_reduction: "sum" over the mini-batch, as published: it outweighs the error by far, and the
            posterior collapses to the prior. "mean": averaged over the mini-batch and divided by the 3·h·w
            values of a view as the error is, so that both are terms of one ELBO.

    Returns:
        float ().
    """
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)  # (N)
    reduced = kl.sum() if kl_reduction == "sum" else kl.mean() / view[0].numel()
    return F.mse_loss(reconstruction, view) + reduced


class VaalTraining:
    """VAE and discriminator in training: one update of each a mini-batch, each by its own Adam."""

    def __init__(
        self, vae: ImageVae, discriminator: Discriminator, config: VaalConfig, noise: torch.Generator
    ) -> None:
        self.vae = vae
        self.discriminator = discriminator
        self._config = config
        self._noise = noise
        self._vae_parameters = list(vae.parameters())
        self._discriminator_parameters = list(discriminator.parameters())
        self._vae_optimizer = torch.optim.Adam(self._vae_parameters, lr=config.learning_rate, fused=True)
        self._discriminator_optimizer = torch.optim.Adam(
            self._discriminator_parameters, lr=config.learning_rate, fused=True
        )

    def update_vae(self, images: Tensor, labelled: int) -> Tensor:
        """One step of the VAE, and of nothing else; returns the loss, ().

        Args:
            images: uint8 (L + U, H, W, 3), the labelled ones first. One forward pass for both, so that batch
                norms treat them alike, as when scoring.
            labelled: L.
        """
        with autocast(images.device, self._config.mixed_precision):
            view = self.vae.view(images)  # (L + U, 3, h, w)
            mean, log_variance = self.vae.encode(view)  # (L + U, Z) each
            mean, log_variance = mean.float(), log_variance.float()
            reconstruction = self.vae.decode(sample(mean, log_variance, self._noise))
            logits = self.discriminator(mean).float()  # (L + U)
        loss = vae_adversarial_loss(logits[:labelled], logits[labelled:]) * self._config.adversary_weight
        for part in (slice(labelled), slice(labelled, None)):
            loss = loss + image_elbo_loss(
                view[part],
                reconstruction[part].float(),
                mean[part],
                log_variance[part],
                kl_reduction=self._config.kl_reduction,
            )
        self._vae_optimizer.zero_grad()
        # The gradient passes through the discriminator and stops at the VAE's own weights.
        loss.backward(inputs=self._vae_parameters)  # type: ignore[no-untyped-call]
        self._vae_optimizer.step()
        return loss.detach()

    def update_discriminator(self, images: Tensor, labelled: int) -> Tensor:
        """One step of the discriminator, and of nothing else; arguments and result as of `update_vae`."""
        with torch.no_grad(), autocast(images.device, self._config.mixed_precision):
            mean = self.vae.encode_mean(self.vae.view(images)).float()  # (L + U, Z)
        logits = self.discriminator(mean)  # (L + U)
        loss = assistant_adversarial_loss(logits[:labelled], logits[labelled:])
        self._discriminator_optimizer.zero_grad()
        loss.backward(inputs=self._discriminator_parameters)  # type: ignore[no-untyped-call]
        self._discriminator_optimizer.step()
        return loss.detach()


def train_vaal(
    labelled: NDArray[np.uint8],
    unlabelled: NDArray[np.uint8],
    config: VaalConfig,
    *,
    horizontal_flip: bool,
    seed: int,
    device: torch.device,
    progress: bool = False,
) -> VaalSelector:
    """Trains VAE and discriminator from new weights; returns them in evaluation mode.

    Args:
        labelled: uint8 (N, H, W, 3), N ≥ 2.
        unlabelled: uint8 (M, H, W, 3), M ≥ 1.
        config: sizes, epochs, weights of the losses. An epoch is one pass over the pool, the labelled images
            cycled beside it.
        horizontal_flip: whether training images are mirrored, each with probability ½; never when scoring.
        seed: of weights, shuffles, flips and noise.
        device: where to train.
        progress: whether to show a bar on a terminal.

    Raises:
        TrainingDivergedError: a loss is no longer finite.
    """
    height, width = labelled.shape[1:3]
    with reproducible(seed, device):
        vae = ImageVae(height, width, config.channels, config.latent_size)
        vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        discriminator = Discriminator(config.latent_size, config.hidden).to(device)
        noise = generator(derived_seed(seed, "noise"), device)
        training = VaalTraining(vae, discriminator, config, noise)
        images = resident(np.concatenate([labelled, unlabelled]), device)  # (N + M, H, W, 3)
        random = generator(derived_seed(seed, "order"))
        batches = epoch_batches(len(labelled), len(unlabelled), config.batch_size, random)
        epochs = bar(range(config.epochs), "VAAL", "epoch", show=progress)
        for epoch in epochs:
            totals, steps = torch.zeros(2, device=device), 0
            for l_index, u_index in next(batches):
                index = torch.cat([l_index, u_index]).to(images.device)  # (L + U)
                flipped = torch.rand(len(index), generator=random) < (0.5 if horizontal_flip else 0.0)
                batch = mirrored(images[index].to(device, non_blocking=True), flipped.to(device))
                totals += torch.stack(
                    [
                        training.update_vae(batch, len(l_index)),
                        training.update_discriminator(batch, len(l_index)),
                    ]
                )
                steps += 1
            if not torch.isfinite(totals).all():
                raise TrainingDivergedError("VAAL", epoch + 1)
            vae_mean, discriminator_mean = (totals / steps).tolist()
            epochs.set_postfix(vae_loss=f"{vae_mean:.3f}", discriminator_loss=f"{discriminator_mean:.3f}")
    return VaalSelector(vae.eval().requires_grad_(False), discriminator.eval().requires_grad_(False))
