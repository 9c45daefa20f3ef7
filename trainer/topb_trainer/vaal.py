"""VAAL (Sinha, Ebrahimi and Darrell, ICCV 2019): a VAE on images against a discriminator on its latent space.

This is the method as published. Its public code differs in two ways that are not reproduced here: it scores
images with random flips and with batch norms in training mode, and in one version it trains the VAE towards
the discriminator's own answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from topb_trainer.config import Reduction, TaskConfig, VaalConfig
from topb_trainer.cotrain import epoch_batches
from topb_trainer.errors import ConfigurationError, TrainingDivergedError
from topb_trainer.losses import assistant_adversarial_loss, vae_adversarial_loss
from topb_trainer.models.vaal import Discriminator, ImageVae
from topb_trainer.models.vae import sample
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.device import autocast, resident
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible
from topb_trainer.task import mirrored


@dataclass(frozen=True)
class VaalSelector:
    """The result of training: the modules that turn an image into its score."""

    vae: ImageVae
    discriminator: Discriminator


def image_elbo_loss(
    view: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, *, kl_reduction: Reduction
) -> Tensor:
    """Return VAAL's representation loss: the mean squared error over all values, plus the KL divergence.

    Args:
        view: float (N, 3, h, w), the images as the VAE sees them.
        reconstruction: float (N, 3, h, w), decoded from z ~ N(μ, σ²).
        mean: float (N, Z), μ.
        log_variance: float (N, Z), log σ².
        kl_reduction: "sum" adds up the KL over the mini-batch, as published. It then outweighs the error by
            far, and the posterior collapses to the prior. "mean" averages it over the mini-batch and divides
            it by the 3·h·w values of a view, like the error; both are then terms of the same ELBO.

    Returns:
        float ().
    """
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)  # (N)
    reduced = kl.sum() if kl_reduction == "sum" else kl.mean() / view[0].numel()  # ()
    return F.mse_loss(reconstruction, view) + reduced  # ()


class VaalTraining:
    """The training state of VAE and discriminator. Each has its own Adam and takes one step per mini-batch.

    A mini-batch is uint8 images (L + U, H, W, 3), the L labelled ones first. Both kinds share one forward
    pass because batch norm should treat them alike, as it does when scoring.
    """

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
        """Take one step that updates only the VAE, and return the loss, float ().

        Args:
            images: uint8 (L + U, H, W, 3).
            labelled: the number L of labelled images.
        """
        with autocast(images.device, self._config.mixed_precision):
            view = self.vae.view(images)  # (L + U, 3, h, w)
            mean, log_variance = self.vae.encode(view)  # (L + U, Z) each
            mean, log_variance = mean.float(), log_variance.float()  # (L + U, Z) each
            z = sample(mean, log_variance, self._noise)  # (L + U, Z)
            reconstruction = self.vae.decode(z)  # (L + U, 3, h, w)
            logits = self.discriminator(mean).float()  # (L + U)
        adversarial = vae_adversarial_loss(logits[:labelled], logits[labelled:])  # ()
        loss = adversarial * self._config.adversary_weight  # ()
        for part in (slice(labelled), slice(labelled, None)):
            loss = loss + image_elbo_loss(
                view[part],
                reconstruction[part].float(),
                mean[part],
                log_variance[part],
                kl_reduction=self._config.kl_reduction,
            )  # ()
        self._vae_optimizer.zero_grad()
        # The gradient passes through the discriminator, but is accumulated for the weights of the VAE only.
        loss.backward(inputs=self._vae_parameters)  # type: ignore[no-untyped-call]
        self._vae_optimizer.step()
        return loss.detach()

    def update_discriminator(self, images: Tensor, labelled: int) -> Tensor:
        """Take one step that updates only the discriminator, and return the loss, float ().

        Args:
            images: uint8 (L + U, H, W, 3).
            labelled: the number L of labelled images.
        """
        with torch.no_grad(), autocast(images.device, self._config.mixed_precision):
            mean = self.vae.encode_mean(self.vae.view(images)).float()  # (L + U, Z)
        logits = self.discriminator(mean)  # (L + U)
        loss = assistant_adversarial_loss(logits[:labelled], logits[labelled:])  # ()
        self._discriminator_optimizer.zero_grad()
        loss.backward(inputs=self._discriminator_parameters)  # type: ignore[no-untyped-call]
        self._discriminator_optimizer.step()
        return loss.detach()


def require_images(task: TaskConfig) -> None:
    """Raise ConfigurationError, with reason METHOD_NEEDS_IMAGES, if a round has features and no images."""
    if task.trains_head:
        raise ConfigurationError(
            "VAAL trains an auto-encoder on images, for which it would have to read the whole pool in each "
            "round, but with --task.train head a round has only the features of the encoder; leave VAAL out, "
            "or give --task.train all",
            reason="METHOD_NEEDS_IMAGES",
        )


def train_vaal(
    labelled: NDArray[np.uint8], unlabelled: NDArray[np.uint8], context: RoundContext
) -> VaalSelector:
    """Train a new VAE and a new discriminator, and return them frozen, in evaluation mode.

    An epoch is one pass over the pool, with the labelled images cycled alongside it. Training images are
    mirrored at random if T's training images are. Images are never mirrored when scoring.

    Args:
        labelled: uint8 (N, H, W, 3), N ≥ 2.
        unlabelled: uint8 (M, H, W, 3), M ≥ 1.
        context: the round.

    Raises:
        TrainingDivergedError: a loss is no longer finite.
    """
    config, device, seed = context.config.vaal, context.device, context.seed("vaal")
    flip_probability = 0.5 if context.task.horizontal_flip else 0.0
    height, width = labelled.shape[1:3]
    with reproducible(seed, device):
        vae = ImageVae(height, width, config.channels, config.latent_size)
        vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        discriminator = Discriminator(config.latent_size, config.hidden).to(device)
        training = VaalTraining(vae, discriminator, config, generator(derived_seed(seed, "noise"), device))
        known, unknown = resident(labelled, device), resident(unlabelled, device)  # (N, …), (M, …)
        random = generator(derived_seed(seed, "order"))
        epoch_of_batches = epoch_batches(len(labelled), len(unlabelled), config.batch_size, random)
        epochs = bar(range(config.epochs), "VAAL", "epoch", show=context.progress)
        for epoch in epochs:
            totals, steps = torch.zeros(2, device=device), 0  # (2): losses of VAE and discriminator
            for labelled_index, unlabelled_index in next(epoch_of_batches):  # (L), (U)
                parts = ((known, labelled_index), (unknown, unlabelled_index - len(known)))
                raw = torch.cat([images[i.to(images.device)].to(device) for images, i in parts])  # (L + U, …)
                flipped = torch.rand(len(raw), generator=random) < flip_probability  # (L + U)
                batch = mirrored(raw, flipped.to(device))  # (L + U, H, W, 3)
                vae_loss = training.update_vae(batch, len(labelled_index))  # ()
                discriminator_loss = training.update_discriminator(batch, len(labelled_index))  # ()
                totals += torch.stack([vae_loss, discriminator_loss])  # (2)
                steps += 1
            if not torch.isfinite(totals).all():
                raise TrainingDivergedError("VAAL", epoch + 1)
            vae_mean, discriminator_mean = (totals / steps).tolist()
            epochs.set_postfix(
                refresh=False, vae_loss=f"{vae_mean:.3f}", discriminator_loss=f"{discriminator_mean:.3f}"
            )
    return VaalSelector(vae.eval().requires_grad_(False), discriminator.eval().requires_grad_(False))
