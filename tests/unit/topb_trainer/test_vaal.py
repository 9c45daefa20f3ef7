"""VAAL: its sizes, which weights each loss moves, what it learns on toy data, and how it is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topb_scorer.errors import InvalidRequestError
from topb_trainer.config import TrainConfig, VaalConfig
from topb_trainer.data.sets import RoundData
from topb_trainer.errors import TrainingDivergedError
from topb_trainer.experiment.run import select_in_memory
from topb_trainer.models.scoring import VaalModel
from topb_trainer.models.vaal import Discriminator, ImageVae
from topb_trainer.rounds import finish_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.seeding import generator
from topb_trainer.task import train_task
from topb_trainer.vaal import VaalSelector, VaalTraining, image_elbo_loss, train_vaal

from .conftest import moved

TINY = VaalConfig(channels=(4, 8, 8, 16), latent_size=4, hidden=(16, 16), epochs=2, batch_size=16)


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(8, 8, (16, 16)), (28, 28, (32, 32)), (32, 32, (32, 32)), (32, 50, (32, 64)), (224, 200, (64, 64))],
)
def test_the_vae_reconstructs_images_of_any_size(height: int, width: int, seen: tuple[int, int]) -> None:
    vae = ImageVae(height, width, (2, 2, 2, 2), 3)
    view = vae.view(torch.zeros(2, height, width, 3, dtype=torch.uint8))
    mean, log_variance = vae.encode(view)
    assert view.shape == vae.decode(mean).shape == (2, 3, *seen)
    assert vae.size == seen
    assert mean.shape == log_variance.shape == (2, 3)


def test_the_default_vaal_layers_are_the_published_ones() -> None:
    config = VaalConfig()
    vae = ImageVae(32, 32, config.channels, config.latent_size)
    discriminator = Discriminator(32, config.hidden)

    def sizes(layers: nn.Sequential, kind: type[nn.Module]) -> list[tuple[int, ...]]:
        return [tuple(layer.weight.shape) for layer in layers if isinstance(layer, kind)]

    down = [(128, 3, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1024, 512, 4, 4)]
    assert sizes(vae.encoder, nn.Conv2d) == down
    # A transposed convolution has its weights in the order input, output.
    up = [(1024, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 3, 1, 1)]
    assert sizes(vae.decoder, nn.ConvTranspose2d) == up
    assert (vae.mean.in_features, vae.mean.out_features) == (1024 * 2 * 2, 32)
    assert sizes(discriminator.layers, nn.Linear) == [(512, 32), (512, 512), (1, 512)]


def test_weights_are_initialised_as_in_the_published_code() -> None:
    torch.manual_seed(0)
    vae, discriminator = ImageVae(32, 32, (64, 64, 64, 64), 32), Discriminator(32, (512, 512))
    convolutions = [layer for layer in vae.encoder if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in discriminator.layers if isinstance(layer, nn.Linear)]
    for layer in (*convolutions, vae.decoder_input, *linear):
        fan_in = layer.weight[0].numel()
        assert layer.weight.square().mean().item() == pytest.approx(2 / fan_in, rel=0.2)
        assert layer.bias is None or not layer.bias.any()
    transposed = [layer for layer in vae.decoder if isinstance(layer, nn.ConvTranspose2d)]
    for layer in (vae.mean, vae.log_variance, *transposed):
        # torch's default is uniform, and its largest value is the root of 1 / fan-in.
        assert layer.weight.abs().max().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.05)
    assert vae.mean.bias.any()


def test_the_kl_is_summed_as_published_or_weighted_as_in_an_elbo() -> None:
    random = torch.Generator().manual_seed(0)
    view, reconstruction = torch.rand(2, 5, 3, 4, 4, generator=random).double()
    mean, log_variance = torch.randn(2, 5, 2, generator=random).double()
    error = ((view - reconstruction) ** 2).mean()
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)  # (5)
    summed, averaged = (
        image_elbo_loss(view, reconstruction, mean, log_variance, kl_reduction=how) for how in ("sum", "mean")
    )
    torch.testing.assert_close(summed, error + kl.sum())
    # The negative ELBO of an image, divided by the number of its values.
    torch.testing.assert_close(averaged * 48, ((view - reconstruction) ** 2).sum() / 5 + kl.mean())


def test_each_update_moves_its_own_weights_and_no_others(digits) -> None:
    torch.manual_seed(0)
    vae, discriminator = ImageVae(8, 8, TINY.channels, 4), Discriminator(4, TINY.hidden)
    training = VaalTraining(vae, discriminator, TINY, generator(0))
    images = torch.from_numpy(digits[0][:20])
    vae_moved, discriminator_moved = moved(lambda: training.update_vae(images, 8), vae, discriminator)
    assert all(vae_moved)
    assert not any(discriminator_moved)
    vae_moved, discriminator_moved = moved(
        lambda: training.update_discriminator(images, 8), vae, discriminator
    )
    assert not any(vae_moved)
    assert all(discriminator_moved)


def trained(
    labelled: NDArray[np.uint8], pool: NDArray[np.uint8], config: VaalConfig = TINY, seed: int = 0
) -> VaalSelector:
    return train_vaal(labelled, pool, RoundContext(TrainConfig(seed=seed, vaal=config)))


@torch.no_grad()
def scores(selector: VaalSelector, images: NDArray[np.uint8]) -> Tensor:
    vae = selector.vae
    return selector.discriminator(vae.encode_mean(vae.view(torch.from_numpy(images)))).sigmoid()


@pytest.mark.slow
def test_images_unlike_the_labelled_ones_are_ranked_first(digits) -> None:
    images, _ = digits
    familiar, strange = images[100:300], 255 - images[300:400]
    config = replace(TINY, epochs=30, kl_reduction="mean", learning_rate=5e-3)
    selector = trained(images[:100], np.concatenate([familiar, strange]), config)
    higher = scores(selector, strange)[:, None] > scores(selector, familiar)[None, :]
    assert higher.float().mean() > 0.95  # of all pairs; at least 0.998 with each of the seeds 0 to 3


def test_a_seed_gives_the_same_scores_of_single_unmirrored_images(digits) -> None:
    images, _ = digits
    first = trained(images[:30], images[30:100])
    torch.rand(3)
    again, other = trained(images[:30], images[30:100]), trained(images[:30], images[30:100], seed=1)
    assert torch.equal(scores(first, images[:50]), scores(again, images[:50]))
    assert not torch.equal(scores(first, images[:50]), scores(other, images[:50]))
    alone = torch.cat([scores(first, images[i : i + 1]) for i in range(10)])
    torch.testing.assert_close(scores(first, images[:10]), alone)
    assert not first.vae.training


def test_it_trains_in_bfloat16_too(digits) -> None:
    images, _ = digits
    selector = trained(images[:30], images[30:100], replace(TINY, mixed_precision="on"))
    assert torch.isfinite(scores(selector, images[:10])).all()
    assert selector.vae.mean.weight.dtype == torch.float32


def test_a_loss_that_is_not_finite_is_an_error(digits) -> None:
    images, _ = digits
    with pytest.raises(TrainingDivergedError, match="VAAL is not finite"):
        trained(images[:30], images[30:60], replace(TINY, learning_rate=1e30, epochs=3))


@pytest.mark.slow
def test_a_vaal_bundle_allows_the_strategy_vaal_and_not_aalu(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(replace(tiny, vaal=TINY))
    task_model = train_task(digit_round.labelled, context)
    trained_round = finish_round(task_model, digit_round, "vaal", context, test_accuracy=0.5, parent=tmp_path)
    bundle = trained_round.bundle
    assert bundle.manifest.method == "vaal"
    assert bundle.strategies == {"vaal", "entropy", "least_confidence", "margin", "random"}
    assert "discriminator" in bundle.manifest.outputs[0].meaning
    assert all(gate.measured <= gate.limit for gate in bundle.manifest.gates)
    assert trained_round.seconds.keys() == {"labelled_features", "selector", "export"}
    pool = digit_round.pool
    picked = select_in_memory(bundle, pool, 20, "vaal", seed=0, device="cpu")
    selector = train_vaal(digit_round.labelled.images, pool.images, context)
    model = VaalModel(task_model, selector.vae, selector.discriminator).eval()
    with torch.no_grad():
        score = model(torch.from_numpy(pool.images))["score"]
    worst_picked = score[[pool.ids.index(id_) for id_ in picked]].min()
    assert (score > worst_picked + 1e-4).sum() < 20
    with pytest.raises(InvalidRequestError, match="cannot serve strategy 'aalu'"):
        select_in_memory(bundle, pool, 20, "aalu", seed=0, device="cpu")
