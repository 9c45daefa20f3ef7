"""Training of T: it learns, it is frozen, it is reproducible, and small last batches do no harm."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.sets import LabelledSet, RoundData
from topb_trainer.models.resnet import ResNet18
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import accuracy, accuracy_on, mirrored, task_losses, task_outputs, train_task

CONTEXT = RoundContext(TrainConfig())


def train(labelled: LabelledSet, seed: int = 0, image: ImageConfig | None = None, **task) -> ResNet18:
    settings = {"width": 4, "epochs": 1, "batch_size": 32, "horizontal_flip": False, **task}
    config = TrainConfig(seed=seed, task=TaskConfig(**settings), image=image or ImageConfig())
    return train_task(labelled, RoundContext(config))


def test_it_learns_real_digits(digit_round: RoundData) -> None:
    model = train(digit_round.labelled, width=8, epochs=30, batch_size=16)
    outputs = task_outputs(model, digit_round.labelled.images, CONTEXT)
    assert accuracy(outputs, digit_round.labelled.labels) > 0.95
    assert accuracy_on(model, digit_round.test, CONTEXT) > 0.5


def test_it_is_frozen_and_in_evaluation_mode(digit_round: RoundData) -> None:
    model = train(digit_round.labelled)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    # The outputs for an image do not depend on the rest of the batch.
    images = digit_round.pool.images
    together, first = task_outputs(model, images[:9], CONTEXT), task_outputs(model, images[:3], CONTEXT)
    torch.testing.assert_close(together.features[:3], first.features)


def test_a_seed_decides_the_weights(digit_round: RoundData) -> None:
    one, same, other = (train(digit_round.labelled, seed, horizontal_flip=True) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_flips_change_what_is_learned(digit_round: RoundData) -> None:
    one, other = (train(digit_round.labelled, horizontal_flip=flip) for flip in (True, False))
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_follows_its_schedule(digit_round: RoundData, schedule: str) -> None:
    rates: list[float] = []

    def record(optimizer: Optimizer, *_: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(record)
    try:
        train(digit_round.labelled, epochs=3, learning_rate=0.01, schedule=schedule)
    finally:
        hook.remove()
    steps = np.arange(len(rates))
    expected = {
        "constant": np.full(len(rates), 0.01),
        "cosine": 0.01 * (1 + np.cos(np.pi * steps / len(rates))) / 2,
    }
    assert len(rates) == 3 * math.ceil(len(digit_round.labelled.ids) / 32)
    assert rates == pytest.approx(expected[schedule])


def test_a_mirrored_image_is_mirrored_left_to_right() -> None:
    images = torch.arange(2 * 2 * 3 * 1).view(2, 2, 3, 1)
    both = mirrored(images, torch.tensor([False, True]))
    assert torch.equal(both[0], images[0])
    assert both[1, :, :, 0].tolist() == [[8, 7, 6], [11, 10, 9]]


@pytest.mark.parametrize("count", [2, 3, 33])
def test_no_batch_holds_a_single_image(count: int, digit_round: RoundData) -> None:
    """Batch norm over a single image is an error, and batches of 32 would leave one of 33 images over."""
    few = digit_round.labelled.subset(np.arange(count))
    model = train(few)
    assert torch.isfinite(task_outputs(model, few.images, CONTEXT).logits).all()


def test_labelled_images_are_normalised_to_mean_0_and_deviation_1(digit_round: RoundData) -> None:
    images = digit_round.labelled.images
    out = train(digit_round.labelled).normalisation(torch.from_numpy(images))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_it_trains_in_bfloat16_too(digit_round: RoundData) -> None:
    model = train(digit_round.labelled, mixed_precision="on")
    outputs = task_outputs(model, digit_round.test.images, CONTEXT)
    assert torch.isfinite(outputs.logits).all()
    assert outputs.features.dtype == model.classifier.weight.dtype == torch.float32


def test_images_of_one_colour_can_be_trained_on(digit_round: RoundData) -> None:
    plain = replace(digit_round.labelled, images=np.full_like(digit_round.labelled.images, 7))
    assert torch.isfinite(task_outputs(train(plain), plain.images, CONTEXT).logits).all()


def test_imagenet_normalisation_is_that_of_imagenet(digit_round: RoundData) -> None:
    model = train(digit_round.labelled, image=ImageConfig(normalisation="imagenet"))
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert model.normalisation(white)[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)


def test_task_losses_are_the_cross_entropy_of_each_image(digit_round: RoundData) -> None:
    outputs = task_outputs(train(digit_round.labelled), digit_round.labelled.images, CONTEXT)
    logits = outputs.logits.double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_p[np.arange(len(logits)), digit_round.labelled.labels]
    np.testing.assert_allclose(task_losses(outputs, digit_round.labelled.labels), expected, rtol=1e-5)


def test_an_unknown_class_counts_as_wrong(digit_round: RoundData) -> None:
    model = train(digit_round.labelled)
    outputs = task_outputs(model, digit_round.test.images, CONTEXT)
    right = outputs.logits.argmax(1).numpy()
    assert accuracy(outputs, right) == 1
    right[:25] = -1
    assert accuracy(outputs, right) == 0.75
