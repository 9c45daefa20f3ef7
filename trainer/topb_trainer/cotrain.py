"""Co-training of VAE and assistant on T's features and predictions (Algorithm 1, lines 8–14).

Features and predictions fit into the memory of the device, so a step is one gather and two updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from topb_trainer.config import TrainConfig
from topb_trainer.errors import TrainingDivergedError
from topb_trainer.losses import (
    assistant_adversarial_loss,
    assistant_loss,
    negative_elbo,
    ranking_loss,
    vae_adversarial_loss,
    vae_loss,
)
from topb_trainer.models.assistant import Assistant
from topb_trainer.models.scoring import FeatureScaling
from topb_trainer.models.vae import Vae, sample
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible
from topb_trainer.task import TaskOutputs


@dataclass(frozen=True)
class Selector:
    """The result of co-training: the modules that turn the outputs of T into scores."""

    scaling: FeatureScaling | nn.Identity
    vae: Vae
    assistant: Assistant

    @torch.no_grad()
    def score(self, outputs: TaskOutputs) -> Tensor:
        """Return logits of A, float32 (N). Images with larger scores are more worth labelling."""
        latent = self.vae.encode_mean(self.scaling(outputs.features))  # (N, Z)
        scores: Tensor = self.assistant(latent, outputs.logits.softmax(1))  # (N)
        return scores


@dataclass(frozen=True)
class Batch:
    """A mini-batch: 2n labelled samples, followed by u unlabelled ones."""

    features: Tensor
    """float32 (2n + u, D), f."""
    probabilities: Tensor
    """float32 (2n + u, C), p."""
    task_losses: Tensor
    """float32 (2n), l of the labelled samples."""

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Split logits (2n + u) into the logits of labelled samples (2n) and of unlabelled samples (u)."""
        labelled = len(self.task_losses)
        return logits[:labelled], logits[labelled:]  # (2n), (u)


class CoTraining:
    """The training state of VAE and assistant. Each has its own Adam and takes one step per mini-batch."""

    def __init__(self, vae: Vae, assistant: Assistant, config: TrainConfig, noise: torch.Generator) -> None:
        self.vae = vae
        self.assistant = assistant
        self._config = config.cotrain
        self._kl_reduction = config.vae.kl_reduction
        self._noise = noise
        self._vae_parameters = list(vae.parameters())
        self._assistant_parameters = list(assistant.parameters())
        rate = self._config.learning_rate
        self._vae_optimizer = torch.optim.Adam(self._vae_parameters, lr=rate, fused=True)
        self._assistant_optimizer = torch.optim.Adam(self._assistant_parameters, lr=rate, fused=True)

    def update_vae(self, batch: Batch) -> Tensor:
        """Take one step on eq. 6 that updates only the VAE (line 10), and return the loss, float ()."""
        mean, log_variance = self.vae.encode(batch.features)  # (2n + u, Z) each
        z = sample(mean, log_variance, self._noise)  # (2n + u, Z)
        reconstruction = self.vae.decode(z)  # (2n + u, D)
        loss = negative_elbo(
            batch.features, reconstruction, mean, log_variance, kl_reduction=self._kl_reduction
        )  # (), eq. 1
        if self._config.adversary:
            latent = mean if self._config.latent_for_assistant == "mean" else z  # (2n + u, Z)
            labelled, unlabelled = batch.split(self.assistant(latent, batch.probabilities))  # (2n), (u)
            adversarial = vae_adversarial_loss(labelled, unlabelled)  # (), eq. 5
            loss = vae_loss(loss, adversarial, self._config.beta)  # (), eq. 6
        self._vae_optimizer.zero_grad()
        # The gradient passes through the assistant, but is accumulated for the weights of the VAE only.
        loss.backward(inputs=self._vae_parameters)  # type: ignore[no-untyped-call]
        self._vae_optimizer.step()
        return loss.detach()

    def update_assistant(self, batch: Batch) -> Tensor:
        """Take one step on eq. 9 that updates only the assistant (line 11), and return the loss, float ()."""
        with torch.no_grad():
            if self._config.latent_for_assistant == "mean":
                latent = self.vae.encode_mean(batch.features)  # (2n + u, Z)
            else:
                latent = sample(*self.vae.encode(batch.features), self._noise)  # (2n + u, Z)
        labelled, unlabelled = batch.split(self.assistant(latent, batch.probabilities))  # (2n), (u)
        loss = torch.zeros((), device=labelled.device)  # ()
        if self._config.adversary:
            loss = assistant_adversarial_loss(labelled, unlabelled)  # (), eq. 7
        if self._config.ranking:
            ranking = ranking_loss(labelled.sigmoid(), batch.task_losses, self._config.margin)  # (), eq. 8
            loss = assistant_loss(loss, ranking, self._config.ranking_weight)  # (), eq. 9
        self._assistant_optimizer.zero_grad()
        loss.backward(inputs=self._assistant_parameters)  # type: ignore[no-untyped-call]
        self._assistant_optimizer.step()
        return loss.detach()


def cotrain(
    labelled: TaskOutputs, task_losses: Tensor, unlabelled: TaskOutputs, context: RoundContext
) -> Selector:
    """Train a new VAE and a new assistant on the device of T's outputs.

    Args:
        labelled: outputs of T for the N labelled images, N ≥ 2.
        task_losses: float32 (N), T's cross-entropy for these images.
        unlabelled: outputs of T for the M images of the pool, M ≥ 1.
        context: the round.

    Raises:
        TrainingDivergedError: a loss is no longer finite.
    """
    config, seed = context.config, context.seed("cotrain")
    device = labelled.features.device
    feature_size, class_count = labelled.features.shape[1], labelled.logits.shape[1]
    with reproducible(seed, device, threads=config.cotrain.threads or 1):
        raw = torch.cat([labelled.features, unlabelled.features])  # (N + M, D)
        scaling = FeatureScaling(raw) if config.cotrain.standardise_features else nn.Identity()
        untrained = untrained_selector(feature_size, class_count, config)
        vae, assistant = untrained.vae.to(device), untrained.assistant.to(device)
        training = CoTraining(vae, assistant, config, generator(derived_seed(seed, "noise"), device))
        features = scaling(raw).contiguous()  # (N + M, D)
        probabilities = torch.cat([labelled.logits, unlabelled.logits]).softmax(1)  # (N + M, C)

        random = generator(derived_seed(seed, "order"))
        epoch_of_batches = epoch_batches(
            len(task_losses), len(unlabelled.features), config.cotrain.batch_size, random, device
        )
        epochs = bar(range(config.cotrain.epochs), "assistant", "epoch", show=context.progress)
        for epoch in epochs:
            totals, steps = torch.zeros(2, device=device), 0  # (2): losses of VAE and assistant
            for labelled_index, unlabelled_index in next(epoch_of_batches):  # (2n), (u)
                index = torch.cat([labelled_index, unlabelled_index])  # (2n + u)
                batch = Batch(features[index], probabilities[index], task_losses[labelled_index])
                totals += torch.stack([training.update_vae(batch), training.update_assistant(batch)])  # (2)
                steps += 1
            if not torch.isfinite(totals).all():
                raise TrainingDivergedError("VAE and assistant", epoch + 1)
            vae_mean, assistant_mean = (totals / steps).tolist()
            epochs.set_postfix(
                refresh=False, vae_loss=f"{vae_mean:.3f}", assistant_loss=f"{assistant_mean:.3f}"
            )
    return Selector(scaling, vae, assistant)


def untrained_selector(feature_size: int, class_count: int, config: TrainConfig) -> Selector:
    """Return a selector of the configured sizes with new weights. If it scales features, it scales by 1."""
    standardise = config.cotrain.standardise_features
    return Selector(
        FeatureScaling(torch.zeros(1, feature_size)) if standardise else nn.Identity(),
        Vae(feature_size, config.vae.latent_size, config.vae.hidden),
        Assistant(
            config.vae.latent_size, class_count, config.assistant.hidden, prediction=config.cotrain.prediction
        ),
    )


def epoch_batches(
    labelled: int, unlabelled: int, size: int, random: torch.Generator, device: torch.device | None = None
) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Yield epochs indefinitely. Each epoch is an iterator over mini-batches of indices.

    An epoch is one pass over the unlabelled samples in a new order. The labelled samples are cycled alongside
    it, in a new order in each cycle.

    Args:
        labelled: number N of labelled samples, with the indices 0 to N − 1.
        unlabelled: number M of unlabelled samples, with the indices N to N + M − 1.
        size: number of unlabelled samples in a mini-batch, and of labelled ones. If there are fewer labelled
            samples, each mini-batch has all of them, or all but one if their number is odd.
        random: generator of the orders.
        device: the device of the indices; defaults to the CPU.

    Yields:
        An iterator over pairs of int64 (2n), indices of labelled samples, and int64 (u), of unlabelled ones.
    """
    labelled_size = min(size, labelled - labelled % 2)  # 2n
    steps = -(-unlabelled // size)  # S
    cycle = _Cycle(labelled, random)
    while True:
        labelled_index = cycle.take(steps * labelled_size).view(steps, labelled_size).to(device)  # (S, 2n)
        order = (labelled + torch.randperm(unlabelled, generator=random)).to(device)  # (M)
        yield zip(labelled_index, torch.split(order, size), strict=True)


class _Cycle:
    """Cycles through the indices 0 to n − 1, each time in a new random order."""

    def __init__(self, n: int, random: torch.Generator) -> None:
        self._n = n
        self._random = random
        self._rest = torch.empty(0, dtype=torch.int64)

    def take(self, count: int) -> Tensor:
        """Return the next `count` indices, int64 (count)."""
        orders, have = [self._rest], len(self._rest)
        while have < count:
            orders.append(torch.randperm(self._n, generator=self._random))  # (n)
            have += self._n
        indices = torch.cat(orders)  # (at least count)
        taken, self._rest = indices[:count], indices[count:]
        return taken
