"""Algorithm 1's second loop (lines 8–14): VAE and assistant co-trained on T's features and predictions.

All of it lies in memory, so a step is one gather and two updates: no data loader, no wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from topb_trainer.config import AssistantConfig, CotrainConfig, VaeConfig
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
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible
from topb_trainer.task import TaskOutputs


@dataclass(frozen=True)
class Selector:
    """What co-training makes: all between T's outputs and the score."""

    scaling: FeatureScaling | nn.Identity
    vae: Vae
    assistant: Assistant

    @torch.no_grad()
    def score(self, outputs: TaskOutputs) -> Tensor:
        """Returns A's output, float32 (N) in [0, 1]: how much each image is worth labelling."""
        latent = self.vae.encode_mean(self.scaling(outputs.features))  # (N, Z)
        scores: Tensor = self.assistant(latent, outputs.logits.softmax(1)).sigmoid()  # (N)
        return scores


@dataclass(frozen=True)
class Batch:
    """A mini-batch: 2n labelled samples, then u unlabelled ones."""

    features: Tensor
    """float32 (2n + u, D), f."""
    probabilities: Tensor
    """float32 (2n + u, C), p."""
    task_losses: Tensor
    """float32 (2n), l of the labelled samples."""

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the labelled (2n) and the unlabelled (u) part of logits (2n + u)."""
        labelled = len(self.task_losses)
        return logits[:labelled], logits[labelled:]


class CoTraining:
    """VAE and assistant in training: one update of each a mini-batch, each by its own Adam."""

    def __init__(
        self,
        vae: Vae,
        assistant: Assistant,
        config: CotrainConfig,
        vae_config: VaeConfig,
        noise: torch.Generator,
    ) -> None:
        self.vae = vae
        self.assistant = assistant
        self._config = config
        self._kl_reduction = vae_config.kl_reduction
        self._noise = noise
        self._vae_parameters = list(vae.parameters())
        self._assistant_parameters = list(assistant.parameters())
        self._vae_optimizer = torch.optim.Adam(self._vae_parameters, lr=config.learning_rate, fused=True)
        self._assistant_optimizer = torch.optim.Adam(
            self._assistant_parameters, lr=config.learning_rate, fused=True
        )

    def update_vae(self, batch: Batch) -> Tensor:
        """Line 10: one step of the VAE, and of nothing else, down eq. 6; returns the loss, ()."""
        mean, log_variance = self.vae.encode(batch.features)  # (2n + u, Z) each
        z = sample(mean, log_variance, self._noise)  # (2n + u, Z)
        loss = negative_elbo(
            batch.features, self.vae.decode(z), mean, log_variance, kl_reduction=self._kl_reduction
        )
        if self._config.adversary:
            latent = mean if self._config.latent_for_assistant == "mean" else z  # (2n + u, Z)
            labelled, unlabelled = batch.split(self.assistant(latent, batch.probabilities))  # (2n), (u)
            loss = vae_loss(loss, vae_adversarial_loss(labelled, unlabelled), self._config.beta)
        self._vae_optimizer.zero_grad()
        # The gradient passes through the assistant and stops at the VAE's own weights.
        loss.backward(inputs=self._vae_parameters)  # type: ignore[no-untyped-call]
        self._vae_optimizer.step()
        return loss.detach()

    def update_assistant(self, batch: Batch) -> Tensor:
        """Line 11: one step of the assistant, and of nothing else, down eq. 9; returns the loss, ()."""
        with torch.no_grad():
            if self._config.latent_for_assistant == "mean":
                latent = self.vae.encode_mean(batch.features)  # (2n + u, Z)
            else:
                latent = sample(*self.vae.encode(batch.features), self._noise)  # (2n + u, Z)
        labelled, unlabelled = batch.split(self.assistant(latent, batch.probabilities))  # (2n), (u)
        loss = torch.zeros((), device=labelled.device)
        if self._config.adversary:
            loss = assistant_adversarial_loss(labelled, unlabelled)
        if self._config.ranking:
            ranking = ranking_loss(labelled.sigmoid(), batch.task_losses, self._config.margin)
            loss = assistant_loss(loss, ranking, self._config.ranking_weight)
        self._assistant_optimizer.zero_grad()
        loss.backward(inputs=self._assistant_parameters)  # type: ignore[no-untyped-call]
        self._assistant_optimizer.step()
        return loss.detach()


def cotrain(
    labelled: TaskOutputs,
    task_losses: Tensor,
    unlabelled: TaskOutputs,
    config: CotrainConfig,
    *,
    vae: VaeConfig,
    assistant: AssistantConfig,
    seed: int,
    progress: bool = False,
) -> Selector:
    """Trains VAE and assistant from new weights on the device where T's outputs lie.

    Args:
        labelled: T's outputs for the N labelled images, N ≥ 2.
        task_losses: float32 (N), T's cross-entropy for them.
        unlabelled: T's outputs for the M images of the pool, M ≥ 1.
        config: epochs, weights of the losses, ablations.
        vae: sizes of the VAE.
        assistant: sizes of the assistant.
        seed: of weights, shuffles and noise.
        progress: whether to show a bar on a terminal.

    Raises:
        TrainingDivergedError: a loss is no longer finite.
    """
    device = labelled.features.device
    feature_size, class_count = labelled.features.shape[1], labelled.logits.shape[1]
    with reproducible(seed, device, threads=config.threads):
        raw = torch.cat([labelled.features, unlabelled.features])  # (N + M, D)
        scaling = FeatureScaling(raw) if config.standardise_features else nn.Identity()
        selector = Selector(
            scaling,
            Vae(feature_size, vae.latent_size, vae.hidden).to(device),
            Assistant(vae.latent_size, class_count, assistant.hidden, prediction=config.prediction).to(
                device
            ),
        )
        training = CoTraining(
            selector.vae, selector.assistant, config, vae, generator(derived_seed(seed, "noise"), device)
        )
        features = scaling(raw).contiguous()  # (N + M, D)
        probabilities = torch.cat([labelled.logits, unlabelled.logits]).softmax(1)  # (N + M, C)
        _run(training, features, probabilities, task_losses, config, seed, progress)
    return selector


def _run(
    training: CoTraining,
    features: Tensor,
    probabilities: Tensor,
    task_losses: Tensor,
    config: CotrainConfig,
    seed: int,
    progress: bool,
) -> None:
    device = features.device
    labelled, unlabelled = len(task_losses), len(features) - len(task_losses)
    random = generator(derived_seed(seed, "order"))
    batches = epoch_batches(labelled, unlabelled, config.batch_size, random, device)
    epochs = bar(range(config.epochs), "assistant", "epoch", show=progress)
    for epoch in epochs:
        totals, steps = torch.zeros(2, device=device), 0
        for l_index, u_index in next(batches):
            index = torch.cat([l_index, u_index])  # (2n + u)
            batch = Batch(features[index], probabilities[index], task_losses[l_index])
            totals += torch.stack([training.update_vae(batch), training.update_assistant(batch)])
            steps += 1
        vae_mean, assistant_mean = (totals / steps).tolist()
        if not torch.isfinite(totals).all():
            raise TrainingDivergedError("VAE and assistant", epoch + 1)
        epochs.set_postfix(vae_loss=f"{vae_mean:.3f}", assistant_loss=f"{assistant_mean:.3f}")


def epoch_batches(
    labelled: int,
    unlabelled: int,
    size: int,
    random: torch.Generator,
    device: torch.device | None = None,
) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Yields epochs without end: mini-batches of indices (2n) of labelled and (u) of unlabelled samples.

    An epoch is one pass over the unlabelled, which follow the labelled ones in the index, in a new order;
    the labelled are cycled beside it, `size` at a time, or all where they are fewer, always an even number.
    """
    labelled_batch = min(size, labelled - labelled % 2)  # 2n
    steps = -(-unlabelled // size)
    cycle = _Cycle(labelled, random)
    while True:
        of_labelled = cycle.take(steps * labelled_batch).view(steps, labelled_batch).to(device)  # (S, 2n)
        of_unlabelled = (labelled + torch.randperm(unlabelled, generator=random)).to(device)  # (M)
        yield zip(of_labelled, torch.split(of_unlabelled, size), strict=True)


class _Cycle:
    """Indices 0…n−1 in a new random order again and again."""

    def __init__(self, n: int, random: torch.Generator) -> None:
        self._orders = self._shuffled(n, random)
        self._rest = torch.empty(0, dtype=torch.int64)

    def take(self, count: int) -> Tensor:
        """Returns the next `count` indices, (count)."""
        pieces, have = [self._rest], len(self._rest)
        while have < count:
            pieces.append(next(self._orders))
            have += len(pieces[-1])
        taken = torch.cat(pieces)
        self._rest = taken[count:]
        return taken[:count]

    @staticmethod
    def _shuffled(n: int, random: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield torch.randperm(n, generator=random)
