"""The task model T: trained on the labelled images (Algorithm 1, lines 1–6), then frozen and asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler

from topb_trainer.config import ImageConfig, TaskConfig
from topb_trainer.data.sets import LabelledSet
from topb_trainer.errors import InvalidDataError, TrainingDivergedError
from topb_trainer.models.resnet import Normalisation, ResNet18, stem_for
from topb_trainer.runtime.data_parallel import ALONE, Team, train_together
from topb_trainer.runtime.device import autocast, resident
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import derived_seed, generator, reproducible

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_ASKED_TOGETHER = 256
_FEWEST_EACH = 2
"""Images of a mini-batch that a process needs: batch norm has no variance of one."""


@dataclass(frozen=True)
class TaskOutputs:
    """What T says of a set of images."""

    features: Tensor
    """float32 (N, D), f."""
    logits: Tensor
    """float32 (N, C); their softmax is the prediction p."""


def train_task(
    labelled: LabelledSet,
    task: TaskConfig,
    image: ImageConfig,
    *,
    seed: int,
    device: torch.device,
    progress: bool = False,
) -> ResNet18:
    """Returns a ResNet18 trained from new weights by cross-entropy, in evaluation mode and frozen.

    Raises:
        TrainingDivergedError: the loss is no longer finite.
        InvalidDataError: there are fewer images than its processes need.
        DeviceError: there are fewer devices than processes.
    """
    if len(labelled.ids) < _FEWEST_EACH * task.processes:
        raise InvalidDataError(
            f"{len(labelled.ids)} labelled images are too few for {task.processes} processes, of which each "
            f"needs {_FEWEST_EACH}; lower task.processes",
            reason="TOO_FEW_IMAGES",
            images=len(labelled.ids),
        )
    height, width = labelled.images.shape[1:3]
    with reproducible(seed, device):
        normalisation = _normalisation(labelled.images, image)
        model = ResNet18(normalisation, len(labelled.classes), task.width, stem_for(task.stem, height, width))
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        train = partial(
            _train, labels=torch.from_numpy(labelled.labels), task=task, seed=seed, progress=progress
        )
        if task.processes == 1:
            train(model, resident(labelled.images, device), device, ALONE)
        else:
            train_together(train, model, labelled.images, device, task.processes)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def ask(
    model: ResNet18,
    images: NDArray[np.uint8],
    *,
    device: torch.device,
    what: str = "",
    progress: bool = False,
) -> TaskOutputs:
    """Returns T's outputs, on `device`, for images uint8 (N, H, W, 3)."""
    features = torch.empty(len(images), model.feature_size, device=device)
    logits = torch.empty(len(images), model.class_count, device=device)
    starts = range(0, len(images), _ASKED_TOGETHER)
    for start in bar(starts, f"features of {what}", "batch", show=progress):
        part = slice(start, start + _ASKED_TOGETHER)
        features[part], logits[part] = model(torch.from_numpy(images[part]).to(device))
    return TaskOutputs(features, logits)


def task_losses(outputs: TaskOutputs, labels: NDArray[np.int64]) -> Tensor:
    """Returns T's cross-entropy, l of eq. 8, float32 (N), for each image with its label (N)."""
    return F.cross_entropy(
        outputs.logits, torch.from_numpy(labels).to(outputs.logits.device), reduction="none"
    )


def accuracy(outputs: TaskOutputs, labels: NDArray[np.int64]) -> float:
    """Returns the share of images that T classifies rightly; a label of −1 is always wrong."""
    return float((outputs.logits.argmax(1).cpu().numpy() == labels).mean())


def _train(
    model: nn.Module,
    images: Tensor,
    device: torch.device,
    team: Team,
    *,
    labels: Tensor,
    task: TaskConfig,
    seed: int,
    progress: bool,
) -> None:
    """Trains the model in place on images (N, H, W, 3), wherever they lie, with labels (N)."""
    labels = labels.to(device)  # (N)
    joined = team.joined(model, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    fewest = _FEWEST_EACH * team.size
    steps = task.epochs * len(_batches(torch.arange(len(images)), task.batch_size, fewest))
    scheduler = _scheduler(optimizer, task, steps)
    random = generator(derived_seed(seed, "order"))
    model.train()
    epochs = bar(range(task.epochs), "task model", "epoch", show=progress and team.rank == 0)
    for epoch in epochs:
        totals = torch.zeros(2, device=device)  # loss, right answers
        order = torch.randperm(len(images), generator=random)  # (N)
        flipped = torch.rand(len(images), generator=random) < (0.5 if task.horizontal_flip else 0.0)  # (N)
        for together in _batches(order, task.batch_size, fewest):
            index = team.share(together)  # (B)
            taken = images[index.to(images.device)].to(device, non_blocking=True)  # (B, H, W, 3)
            batch = mirrored(taken, flipped[index].to(device))  # (B, H, W, 3)
            target = labels[index.to(device)]  # (B)
            with autocast(device, task.mixed_precision):
                _, logits = joined(batch)  # (B, C)
            loss = F.cross_entropy(logits.float(), target)
            optimizer.zero_grad()
            (loss * team.weight(len(index), len(together))).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            right = (logits.detach().argmax(1) == target).sum()
            totals += torch.stack([loss.detach() * len(batch), right])
        mean_loss, right_share = (team.summed(totals) / len(images)).tolist()
        if not np.isfinite(mean_loss):
            raise TrainingDivergedError("the task model", epoch + 1)
        epochs.set_postfix(loss=f"{mean_loss:.4f}", accuracy=f"{right_share:.1%}")


def _scheduler(optimizer: Optimizer, task: TaskConfig, steps: int) -> LRScheduler:
    """Sets the learning rate of each of so many steps."""
    if task.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return ConstantLR(optimizer, factor=1.0)


def _batches(order: Tensor, size: int, fewest: int) -> list[Tensor]:
    """Cuts an order (N) into pieces of `size`; a last piece of less than `fewest` joins the one before."""
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) < fewest:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    """Returns images (B, H, W, 3), those that are `flipped` (B) mirrored left to right."""
    return torch.where(flipped[:, None, None, None], images.flip(2), images)


def _normalisation(images: NDArray[np.uint8], image: ImageConfig) -> Normalisation:
    if image.normalisation == "imagenet":
        return Normalisation(_IMAGENET_MEAN, _IMAGENET_DEVIATION)
    # By counts of each value: exact, and in the memory of one channel.
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(3):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size  # (256)
        mean = float(share @ values)
        means.append(mean)
        # Images of one colour have no deviation: one step of a pixel then.
        deviations.append(max(float(np.sqrt(share @ (values - mean) ** 2)), 1 / 255))
    return Normalisation(means, deviations)
