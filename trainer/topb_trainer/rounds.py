"""One round of AALU (Algorithm 1): train T, ask it, co-train VAE and assistant, export what scores a pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from topb_scorer.bundle import Bundle
from topb_scorer.imaging import ImageInput

from topb_trainer.config import TrainConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data import LabelledSet, UnlabelledSet
from topb_trainer.errors import DeviceError
from topb_trainer.export import Provenance, export_bundle
from topb_trainer.models.scoring import ScoringModel
from topb_trainer.seeding import derived_seed
from topb_trainer.task import accuracy, ask, task_losses, train_task


@dataclass(frozen=True)
class RoundData:
    """What a round is given."""

    labelled: LabelledSet
    pool: UnlabelledSet
    test: LabelledSet | None
    target: ImageInput
    """How all of them were decoded."""


@dataclass(frozen=True)
class TrainedRound:
    """What a round makes."""

    bundle: Bundle
    train_accuracy: float
    """Of T on the labelled images, not mirrored."""
    test_accuracy: float | None
    """Of T on the test images; None without any."""


def train_round(
    data: RoundData, config: TrainConfig, *, parent: Path, round_index: int = 0, progress: bool = False
) -> TrainedRound:
    """Trains one round and publishes its bundle in `parent`; on the CPU a seed gives the same model id.

    Raises:
        DeviceError: the configured device cannot be used.
        TrainingDivergedError: a loss is no longer finite.
        ExportGateError: the exported graph does not do what the trained model does.
        BundleError: a bundle of this model stands in `parent` already and is torn or altered.
    """
    device = torch_device(config.device)
    seed = derived_seed(config.seed, "round", round_index)
    task_model = train_task(
        data.labelled,
        config.task,
        config.image,
        seed=derived_seed(seed, "task"),
        device=device,
        progress=progress,
    )
    labelled = ask(task_model, data.labelled.images, device=device, what="labelled", progress=progress)
    unlabelled = ask(task_model, data.pool.images, device=device, what="pool", progress=progress)
    selector = cotrain(
        labelled,
        task_losses(labelled, data.labelled.labels),
        unlabelled,
        config.cotrain,
        vae=config.vae,
        assistant=config.assistant,
        seed=derived_seed(seed, "cotrain"),
        progress=progress,
    )
    test_accuracy = None
    if data.test is not None:
        test = ask(task_model, data.test.images, device=device, what="test", progress=progress)
        test_accuracy = accuracy(test, data.test.labels)
    model = ScoringModel(task_model, selector.scaling, selector.vae, selector.assistant)
    bundle = export_bundle(
        model.to("cpu").eval(),
        parent=parent,
        target=data.target,
        labelled_ids=data.labelled.ids,
        labelled_features=labelled.features.cpu().numpy(),
        gate_images=_spread(data.pool.images, config.export.gate_images),
        provenance=Provenance(round_index, data.labelled.classes, test_accuracy),
        config=config,
    )
    return TrainedRound(bundle, accuracy(labelled, data.labelled.labels), test_accuracy)


def torch_device(name: str) -> torch.device:
    """Returns the device of that name.

    Raises:
        DeviceError: there is no such device, or torch cannot use it; never the CPU in its place.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"{name!r} is no device; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN", device=name
        ) from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(
            f"{name!r} cannot be used; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; check the "
            "driver and that torch was built with CUDA",
            reason="DEVICE_UNAVAILABLE",
            device=name,
        )
    return device


def _spread(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Up to `count` of images (N, H, W, 3), evenly spaced."""
    at = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return images[at]
