"""The task model T (Algorithm 1, lines 1–7): trained on the labelled images, then frozen and applied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler

from topb_trainer.config import RESNET18, ImageConfig, ResolvedTask, TaskConfig, TrainConfig
from topb_trainer.data.sets import LabelledSet
from topb_trainer.encoders.opening import open_encoder
from topb_trainer.encoders.resnet18 import resnet18
from topb_trainer.encoders.source import GraphEncoder, normalisation_moments
from topb_trainer.errors import InvalidDataError, TrainingDivergedError
from topb_trainer.models.resnet import Normalisation
from topb_trainer.models.task_network import EncoderNetwork, HeadNetwork, TaskNetwork
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.data_parallel import SINGLE_PROCESS, ProcessGroup, train_in_parallel
from topb_trainer.runtime.device import autocast, resident
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible

_USUAL_DEVIATION = 0.225
"""Deviation of the channels of photos, in [0, 1]. ImageNet's channels have 0.224 to 0.229."""
_INFERENCE_BATCH = 256
_COUNTED_IMAGES = 64
_MIN_IMAGES_PER_PROCESS = 2
"""Batch norm needs at least two images per mini-batch and process, because one image has no variance."""


@dataclass(frozen=True)
class TaskOutputs:
    """The outputs of T for a set of images."""

    features: Tensor
    """float32 (N, D), f."""
    logits: Tensor
    """float32 (N, C); their softmax is the prediction p."""


def train_task(labelled: LabelledSet, context: RoundContext) -> TaskNetwork:
    """Train a new T by cross-entropy (lines 1–6), and return it frozen, in evaluation mode.

    The weights depend only on the data, the seed and the round.

    Raises:
        TrainingDivergedError: the loss is no longer finite.
        InvalidDataError: there are too few images for the number of processes.
        DeviceError: there are fewer devices than processes.
    """
    task, device, seed = context.task, context.device, context.seed("task")
    require_images_for_processes(len(labelled.ids), task)
    with reproducible(seed, device):
        model = untrained_task(labelled, context.config).to(device)
        train = partial(
            _train, labels=torch.from_numpy(labelled.labels), task=task, seed=seed, progress=context.progress
        )
        if task.processes == 1:
            train(model, resident(labelled.images, device), device, SINGLE_PROCESS)
        else:
            train_in_parallel(train, model, labelled.images, device, task.processes)
    return model.eval().requires_grad_(False)


def require_images_for_processes(labelled: int, task: TaskConfig) -> None:
    """Raise an error if there are too few labelled images for the number of processes.

    Raises:
        InvalidDataError: a process would get fewer images than batch norm needs.
    """
    if labelled < _MIN_IMAGES_PER_PROCESS * task.processes:
        raise InvalidDataError(
            f"{labelled} labelled images are too few for {task.processes} processes, each of which "
            f"needs {_MIN_IMAGES_PER_PROCESS}; lower task.processes",
            reason="TOO_FEW_IMAGES",
            images=labelled,
        )


def untrained_task(labelled: LabelledSet, config: TrainConfig) -> TaskNetwork:
    """Return a T as configured, for the labelled images and their classes, with the weights before training.

    Raises:
        ConfigurationError, ScorerError: the encoder or its weights cannot be used.
    """
    task, classes = config.task, len(labelled.classes)
    if task.trains_head:
        return HeadNetwork(torch.from_numpy(labelled.images), classes, task.head)
    height, width = labelled.images.shape[1:3]
    normalisation = _normalisation(labelled.images, config.image)
    if task.encoder == RESNET18:
        model: TaskNetwork = resnet18(task, normalisation, classes, height, width)
    else:
        encoder = open_encoder(task, config.image)
        assert not isinstance(encoder, GraphEncoder)  # only its head can be trained
        model = EncoderNetwork(encoder.build(normalisation, height, width), classes)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def task_outputs(
    model: TaskNetwork, images: NDArray[Any], context: RoundContext, *, name: str = "images"
) -> TaskOutputs:
    """Return features and logits of T for images (line 7), as tensors on the device of the round.

    Args:
        model: T, in evaluation mode.
        images: uint8 (N, H, W, 3), or the features of an encoder that is not trained, float32 (N, D).
        context: the round.
        name: name of the images in the progress bar.
    """
    features = torch.empty(len(images), model.feature_size, device=context.device)  # (N, D)
    logits = torch.empty(len(images), model.class_count, device=context.device)  # (N, C)
    starts = range(0, len(images), _INFERENCE_BATCH)
    for start in bar(starts, f"features of {name}", "batch", show=context.progress):
        part = slice(start, start + _INFERENCE_BATCH)
        batch = torch.from_numpy(images[part]).to(context.device)  # (B, H, W, 3)
        features[part], logits[part] = model(batch)  # (B, D), (B, C)
    return TaskOutputs(features, logits)


def task_losses(outputs: TaskOutputs, labels: NDArray[np.int64]) -> Tensor:
    """Return T's cross-entropy for each image, l of eq. 8, float32 (N), given labels (N)."""
    target = torch.from_numpy(labels).to(outputs.logits.device)  # (N)
    return F.cross_entropy(outputs.logits, target, reduction="none")  # (N)


def accuracy(outputs: TaskOutputs, labels: NDArray[np.int64]) -> float:
    """Return the share of images that T classifies correctly. A label of −1 always counts as wrong."""
    return float((outputs.logits.argmax(1).cpu().numpy() == labels).mean())


def accuracy_on(model: TaskNetwork, test: LabelledSet, context: RoundContext) -> float:
    """Return the accuracy of T on a test set."""
    return accuracy(task_outputs(model, test.images, context, name="test"), test.labels)


def mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    """Return images (B, H, W, 3), mirrored left to right where `flipped` (B) is true."""
    return torch.where(flipped[:, None, None, None], images.flip(2), images)  # (B, H, W, 3)


def _train(
    model: nn.Module,
    images: Tensor,
    device: torch.device,
    group: ProcessGroup,
    *,
    labels: Tensor,
    task: ResolvedTask,
    seed: int,
    progress: bool,
) -> None:
    """Train the model in place on images (N, H, W, 3) or features (N, D), on any device, with labels (N)."""
    labels = labels.to(device)  # (N)
    wrapped = group.wrap(model, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    smallest = _MIN_IMAGES_PER_PROCESS * group.size
    steps = task.epochs * len(_batches(torch.arange(len(images)), task.batch_size, smallest))
    scheduler = _scheduler(optimizer, task, steps)
    random = generator(derived_seed(seed, "order"))
    model.train()
    epochs = bar(range(task.epochs), "task model", "epoch", show=progress and group.rank == 0)
    for epoch in epochs:
        totals = torch.zeros(2, device=device)  # (2): sum of losses, number of correct answers
        order = torch.randperm(len(images), generator=random)  # (N)
        flipped = torch.rand(len(images), generator=random) < (0.5 if task.horizontal_flip else 0.0)  # (N)
        for batch in _batches(order, task.batch_size, smallest):
            index = group.share(batch)  # (B)
            raw = images[index.to(images.device)].to(device, non_blocking=True)  # (B, H, W, 3)
            augmented = mirrored(raw, flipped[index].to(device)) if task.horizontal_flip else raw
            target = labels[index.to(device)]  # (B)
            with autocast(device, task.mixed_precision):
                _, logits = wrapped(augmented)  # (B, C)
            loss = F.cross_entropy(logits.float(), target)  # ()
            optimizer.zero_grad()
            (loss * group.loss_weight(len(index), len(batch))).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            correct = (logits.detach().argmax(1) == target).sum()  # ()
            totals += torch.stack([loss.detach() * len(index), correct])  # (2)
        mean_loss, correct_share = (group.sum(totals) / len(images)).tolist()
        if not np.isfinite(mean_loss):
            raise TrainingDivergedError("the task model", epoch + 1)
        epochs.set_postfix(refresh=False, loss=f"{mean_loss:.4f}", accuracy=f"{correct_share:.1%}")


def _scheduler(optimizer: Optimizer, task: ResolvedTask, steps: int) -> LRScheduler:
    if task.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return ConstantLR(optimizer, factor=1.0)


def _batches(order: Tensor, size: int, smallest: int) -> list[Tensor]:
    """Split an order (N) into mini-batches of `size`. A last one below `smallest` joins the one before."""
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) < smallest:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _normalisation(images: NDArray[np.uint8], image: ImageConfig) -> Normalisation:
    if (moments := normalisation_moments(image)) is not None:
        return Normalisation(*moments)
    # A histogram of the 256 values gives exact moments without a floating-point copy of the images.
    values = np.arange(256) / 255  # (256)
    means, deviations = [], []
    for channel in range(3):
        share = _histogram(images[..., channel]) / images[..., channel].size  # (256)
        mean = float(share @ values)
        means.append(mean)
        deviation = float(np.sqrt(share @ (values - mean) ** 2))
        # A channel that is constant, to a step of a pixel, says nothing about the scale of other images. With
        # a tiny deviation, images of the pool would have values of hundreds, and co-training would diverge.
        deviations.append(deviation if deviation >= 1 / 255 else _USUAL_DEVIATION)
    return Normalisation(means, deviations)


def _histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value 0 to 255 occurs in an array (N, …)."""
    # bincount needs nine bytes for each value, so it takes a few images at a time.
    return sum(
        (
            np.bincount(values[start : start + _COUNTED_IMAGES].ravel(), minlength=256)
            for start in range(0, len(values), _COUNTED_IMAGES)
        ),
        np.zeros(256, np.int64),
    )
