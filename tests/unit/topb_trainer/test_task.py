"""Training of T: it learns, it is frozen, it is reproducible, and small last batches do no harm."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.sets import LabelledSet, RoundData
from topb_trainer.models.resnet import ResNet18
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import (
    TaskOutputs,
    accuracy,
    accuracy_on,
    mirrored,
    task_losses,
    task_outputs,
    train_task,
)

from .conftest import differing

CONTEXT = RoundContext(TrainConfig())


def train(labelled: LabelledSet, seed: int = 0, index: int = 0, normalisation="labelled", **task) -> ResNet18:
    settings = {"width": 4, "epochs": 1, "batch_size": 32, "horizontal_flip": False, **task}
    image = ImageConfig(normalisation=normalisation)
    config = TrainConfig(seed, image=image, task=TaskConfig(**settings))
    return train_task(labelled, RoundContext(config, index))


def test_the_task_model_learns_real_digits(digit_round: RoundData) -> None:
    model = train(digit_round.labelled, width=8, epochs=30, batch_size=16)
    outputs = task_outputs(model, digit_round.labelled.images, CONTEXT)
    assert accuracy(outputs, digit_round.labelled.labels) > 0.95
    assert accuracy_on(model, digit_round.test, CONTEXT) > 0.5


def test_the_trained_task_model_is_frozen_and_in_evaluation_mode(digit_round: RoundData) -> None:
    model = train(digit_round.labelled)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    # The outputs for an image do not depend on the rest of the batch.
    images = digit_round.pool.images
    together, first = task_outputs(model, images[:9], CONTEXT), task_outputs(model, images[:3], CONTEXT)
    torch.testing.assert_close(together.features[:3], first.features)


def test_seed_and_round_decide_the_weights_and_flips_change_them(digit_round: RoundData) -> None:
    one, again, *others = (
        train(digit_round.labelled, seed, index, horizontal_flip=flip)
        for seed, index, flip in [(1, 0, True), (1, 0, True), (2, 0, True), (1, 1, True), (1, 0, False)]
    )
    assert not any(differing(one, again))
    assert all(any(differing(one, other)) for other in others)


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


def test_a_constant_channel_does_not_throw_other_images_far_out(digit_round: RoundData) -> None:
    black = replace(digit_round.labelled, images=np.zeros_like(digit_round.labelled.images))
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert train(black).normalisation(white).abs().max() < 5


def test_imagenet_normalisation_uses_the_statistics_of_imagenet(digit_round: RoundData) -> None:
    model = train(digit_round.labelled, normalisation="imagenet")
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert model.normalisation(white)[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)


def test_task_losses_are_the_cross_entropy_of_each_image() -> None:
    logits, labels = torch.randn(9, 4), np.arange(9) % 4
    expected = -log_softmax(logits.double().numpy(), axis=1)[np.arange(9), labels]
    np.testing.assert_allclose(task_losses(TaskOutputs(logits, logits), labels), expected, rtol=1e-5)


def test_accuracy_counts_an_unknown_class_as_wrong() -> None:
    outputs = TaskOutputs(torch.eye(4), torch.eye(4))
    assert accuracy(outputs, np.array([0, 1, 2, 3])) == 1
    assert accuracy(outputs, np.array([0, 1, 2, -1])) == 0.75
