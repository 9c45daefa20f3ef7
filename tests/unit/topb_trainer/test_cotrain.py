"""Co-training: which weights each loss moves, what the assistant learns on toy data, and reproducibility."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from topb_trainer.config import AssistantConfig, CotrainConfig, TrainConfig, VaeConfig
from topb_trainer.cotrain import Batch, CoTraining, Selector, cotrain
from topb_trainer.errors import TrainingDivergedError
from topb_trainer.losses import ranking_loss, vae_adversarial_loss
from topb_trainer.models.assistant import Assistant
from topb_trainer.models.vae import Vae
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.seeding import generator
from topb_trainer.task import TaskOutputs

from .conftest import moved

VAE = VaeConfig(latent_size=8, hidden=(64, 32))
ASSISTANT = AssistantConfig(hidden=(64, 64))


def trained(
    labelled: TaskOutputs, losses: Tensor, unlabelled: TaskOutputs, config: CotrainConfig, seed: int = 0
) -> Selector:
    settings = TrainConfig(seed=seed, vae=VAE, assistant=ASSISTANT, cotrain=config)
    return cotrain(labelled, losses, unlabelled, RoundContext(settings))


# Which weights each loss moves


def pair() -> tuple[Vae, Assistant, Batch]:
    torch.manual_seed(0)
    batch = Batch(torch.randn(12, 5), torch.randn(12, 3).softmax(1), torch.rand(4))
    return Vae(5, 2, (8, 6)), Assistant(2, 3, (8, 8)), batch


@pytest.mark.parametrize(
    "switches", [{}, {"ranking": False}, {"adversary": False}, {"latent_for_assistant": "sample"}]
)
def test_each_update_moves_its_own_weights_and_no_others(switches: dict) -> None:
    vae, assistant, batch = pair()
    config = CotrainConfig(**switches)
    training = CoTraining(vae, assistant, TrainConfig(cotrain=config), generator(0))
    vae_moved, assistant_moved = moved(lambda: training.update_vae(batch), vae, assistant)
    assert all(vae_moved)
    assert not any(assistant_moved)
    assert all(parameter.grad is None for parameter in assistant.parameters())
    vae.zero_grad()
    vae_moved, assistant_moved = moved(lambda: training.update_assistant(batch), vae, assistant)
    assert not any(vae_moved)
    assert all(parameter.grad is None for parameter in vae.parameters())
    # The ranking loss depends on differences of scores only, so that it has no gradient for the last bias.
    assert all(assistant_moved if config.adversary else assistant_moved[:-1])


def test_updating_the_vae_makes_both_kinds_look_labelled_to_the_assistant() -> None:
    vae, assistant, batch = pair()
    config = CotrainConfig(beta=1e4, learning_rate=1e-3)  # so that the adversary outweighs the rest
    training = CoTraining(vae, assistant, TrainConfig(cotrain=config), generator(0))

    def equation_5() -> float:
        logits = assistant(vae.encode_mean(batch.features), batch.probabilities)
        return vae_adversarial_loss(*batch.split(logits)).item()

    before = equation_5()
    for _ in range(5):
        training.update_vae(batch)
    assert equation_5() < before


def test_the_assistant_step_is_adam_on_equation_9_over_the_encoder_mean() -> None:
    vae, assistant, batch = pair()
    reference = Assistant(2, 3, (8, 8))
    reference.load_state_dict(assistant.state_dict())
    CoTraining(vae, assistant, TrainConfig(), generator(0)).update_assistant(batch)
    mean = vae.encode(batch.features)[0].detach()
    answers = reference(mean, batch.probabilities).sigmoid()
    l_answers, u_answers = answers[:4], answers[4:]
    loss = -(1 - l_answers).log().mean() - u_answers.log().mean()
    loss = loss + 10 * ranking_loss(l_answers, batch.task_losses, 0.1)
    optimizer = torch.optim.Adam(reference.parameters(), lr=5e-4)
    loss.backward()
    optimizer.step()
    for ours, theirs in zip(assistant.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# What the assistant learns

CLUSTERS = 4
PER_CLUSTER = 100


def clusters(seed: int) -> tuple[TaskOutputs, Tensor, TaskOutputs]:
    """Return labelled samples of three clusters, their task losses, and unlabelled ones of four clusters."""
    random = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(CLUSTERS, 32, generator=random).abs()  # (4, D)

    def draw(count: int, of: int) -> Tensor:
        noise = 0.3 * torch.randn(count * of, 32, generator=random)
        return centres[:of].repeat_interleave(count, dim=0) + noise  # (of × count, D)

    def outputs(features: Tensor) -> TaskOutputs:
        return TaskOutputs(features, -torch.cdist(features, centres[:3]))  # (N, D), (N, 3)

    labelled, unlabelled = outputs(draw(60, 3)), outputs(draw(PER_CLUSTER, CLUSTERS))
    labels = torch.arange(3).repeat_interleave(60)
    return labelled, cross_entropy(labelled.logits, labels, reduction="none"), unlabelled


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_that_labelled_data_misses_is_ranked_first(seed: int) -> None:
    labelled, losses, unlabelled = clusters(seed)
    selector = trained(labelled, losses, unlabelled, CotrainConfig(), seed)
    scores = selector.score(unlabelled)
    best = scores.argsort(descending=True)[:PER_CLUSTER]
    assert (best >= 3 * PER_CLUSTER).float().mean() >= 0.99
    assert scores[3 * PER_CLUSTER :].sigmoid().mean() > 0.7


def two_regions(harder: int) -> tuple[TaskOutputs, Tensor, TaskOutputs]:
    """Return two labelled clusters, left and right, and beyond each an equally distant region without labels.

    T is equally unsure of all samples. Its losses are higher on one side: 0 is left, 1 is right.
    """
    random = torch.Generator().manual_seed(7)
    side = torch.arange(2).repeat_interleave(100)  # (200)

    def outputs(beyond: float) -> TaskOutputs:
        features = 0.2 * torch.randn(200, 16, generator=random)
        features[:, 0] += 2 * (2 * side - 1)
        features[:, 1] += beyond
        return TaskOutputs(features, torch.zeros(200, 3))

    labelled, near, far = outputs(0), outputs(0), outputs(2)
    losses = torch.where(side == harder, 2.0, 0.2) + 0.1 * torch.rand(200, generator=random)
    return labelled, losses, TaskOutputs(torch.cat([near.features, far.features]), torch.zeros(400, 3))


def scores_beyond(harder: int, config: CotrainConfig) -> Tensor:
    """Return the scores of the regions without labels, left and right, (2, 100)."""
    labelled, losses, unlabelled = two_regions(harder)
    return trained(labelled, losses, unlabelled, config).score(unlabelled)[200:].view(2, 100)


@pytest.mark.slow
@pytest.mark.parametrize("harder", [0, 1])
def test_of_two_regions_equally_far_the_one_with_higher_task_loss_is_ranked_first(harder: int) -> None:
    regions = scores_beyond(harder, CotrainConfig())
    wins = (regions[harder][:, None] > regions[1 - harder][None, :]).float().mean()  # of all pairs
    assert wins > 0.9


def test_without_the_ranking_loss_task_losses_do_not_affect_the_scores() -> None:
    left, right = (scores_beyond(harder, CotrainConfig(epochs=3, ranking=False)) for harder in (0, 1))
    assert torch.equal(left, right)
    assert not torch.equal(left, scores_beyond(0, CotrainConfig(epochs=3)))


def test_without_the_prediction_the_scores_do_not_depend_on_it() -> None:
    labelled, losses, unlabelled = clusters(0)
    config = CotrainConfig(epochs=3, prediction=False)
    selector = trained(labelled, losses, unlabelled, config)
    other = replace(unlabelled, logits=unlabelled.logits.flip(0))
    assert torch.equal(selector.score(unlabelled), selector.score(other))
    informed = trained(labelled, losses, unlabelled, replace(config, prediction=True))
    assert not torch.equal(informed.score(unlabelled), informed.score(other))


@pytest.mark.slow
def test_without_the_adversary_nothing_is_learned_about_the_pool() -> None:
    """In lossLearn, the VAE only represents the pool, and the assistant only ranks labelled samples."""
    labelled, losses, unlabelled = clusters(0)
    selector = trained(labelled, losses, unlabelled, CotrainConfig(adversary=False))
    assert selector.score(unlabelled)[3 * PER_CLUSTER :].sigmoid().mean() < 0.7


def test_a_seed_gives_the_same_scores_after_other_draws_and_restores_the_random_state() -> None:
    data = clusters(0)
    config = CotrainConfig(epochs=2, latent_for_assistant="sample")
    first = trained(*data, config, seed=5).score(data[2])
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(first, trained(*data, config, seed=5).score(data[2]))
    assert not torch.equal(first, trained(*data, config, seed=6).score(data[2]))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), (2, 2)])
def test_co_training_uses_one_thread_unless_told_otherwise(
    threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, update = set(), CoTraining.update_vae

    def spy(training: CoTraining, batch: Batch) -> Tensor:
        seen.add(torch.get_num_threads())
        return update(training, batch)

    monkeypatch.setattr(CoTraining, "update_vae", spy)
    torch.set_num_threads(3)
    random = torch.Generator().manual_seed(0)
    few = TaskOutputs(torch.randn(4, 8, generator=random), torch.randn(4, 2, generator=random))
    config = TrainConfig(cotrain=CotrainConfig(epochs=1, threads=threads))
    cotrain(few, torch.rand(4, generator=random), few, RoundContext(config))
    assert (seen, torch.get_num_threads()) == ({expected}, 3)
    torch.set_num_threads(1)


@pytest.mark.parametrize(("labelled_count", "unlabelled_count"), [(2, 1), (3, 5), (7, 300)])
def test_very_few_samples_of_either_kind_are_enough(labelled_count: int, unlabelled_count: int) -> None:
    labelled = TaskOutputs(torch.rand(labelled_count, 6), torch.rand(labelled_count, 3))
    unlabelled = TaskOutputs(torch.rand(unlabelled_count, 6), torch.rand(unlabelled_count, 3))
    selector = trained(labelled, torch.rand(labelled_count), unlabelled, CotrainConfig(epochs=2))
    scores = selector.score(unlabelled)
    assert scores.shape == (unlabelled_count,)
    assert ((scores > 0) & (scores < 1)).all()


def test_standardised_features_have_mean_0_and_deviation_1_over_both() -> None:
    labelled, losses, unlabelled = clusters(0)
    selector = trained(labelled, losses, unlabelled, CotrainConfig(epochs=1, standardise_features=True))
    scaled = selector.scaling(torch.cat([labelled.features, unlabelled.features]))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(32), atol=1e-5, rtol=0)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    labelled, losses, unlabelled = clusters(0)
    huge = replace(unlabelled, features=unlabelled.features * 1e30)
    with pytest.raises(TrainingDivergedError, match="VAE and assistant is not finite after epoch 1"):
        trained(labelled, losses, huge, CotrainConfig(epochs=2))
