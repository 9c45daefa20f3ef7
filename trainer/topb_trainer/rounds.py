"""One round (Algorithm 1): train T, ask it, train what selects beside it, export what scores a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer.bundle import Bundle
from topb_trainer.config import TrainConfig
from topb_trainer.cotrain import cotrain
from topb_trainer.data.sets import LabelledSet, UnlabelledSet
from topb_trainer.export.bundle import Provenance, export_bundle
from topb_trainer.methods import SelectorKind, assistant_method
from topb_trainer.models.resnet import ResNet18
from topb_trainer.models.scoring import AnyScoringModel, ScoringModel, TaskScoringModel
from topb_trainer.models.vaal import VaalScoringModel
from topb_trainer.runtime.device import torch_device
from topb_trainer.runtime.seeding import derived_seed
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import TaskOutputs, accuracy, ask, task_losses, train_task
from topb_trainer.vaal import train_vaal


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
    seconds: Mapping[str, float]
    """Spent on "labelled_features" (T's, of the labelled images), "selector" (T's outputs for the pool, where
    the selector is trained on them, and its training) and "export"."""


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
    task_model = train_round_task(data.labelled, config, round_index=round_index, progress=progress)
    test_accuracy = None
    if data.test is not None:
        test_accuracy = accuracy_on(task_model, data.test, config, progress=progress)
    return finish_round(
        task_model,
        data,
        config,
        "assistant",
        test_accuracy=test_accuracy,
        parent=parent,
        round_index=round_index,
        progress=progress,
    )


def train_round_task(
    labelled: LabelledSet, config: TrainConfig, *, round_index: int, progress: bool = False
) -> ResNet18:
    """Returns the round's T, from weights that seed and round alone decide; errors as `train_round`."""
    return train_task(
        labelled,
        config.task,
        config.image,
        seed=derived_seed(_round_seed(config, round_index), "task"),
        device=torch_device(config.device),
        progress=progress,
    )


def accuracy_on(
    task_model: ResNet18, test: LabelledSet, config: TrainConfig, *, progress: bool = False
) -> float:
    """Returns T's accuracy on test images."""
    device = torch_device(config.device)
    return accuracy(ask(task_model, test.images, device=device, what="test", progress=progress), test.labels)


def finish_round(
    task_model: ResNet18,
    data: RoundData,
    config: TrainConfig,
    kind: SelectorKind,
    *,
    test_accuracy: float | None,
    parent: Path,
    round_index: int,
    progress: bool = False,
) -> TrainedRound:
    """Trains what selects beside a trained T, and publishes the bundle; errors as `train_round`."""
    device = torch_device(config.device)
    watch = Stopwatch(device)
    with watch.timing("labelled_features"):
        # The export below leaves it on the CPU, and an experiment's first T is used by several methods.
        task_model.to(device)
        labelled = ask(task_model, data.labelled.images, device=device, what="labelled", progress=progress)
    features = labelled.features.cpu().numpy()
    train_accuracy = accuracy(labelled, data.labelled.labels)
    with watch.timing("selector"):
        model = _with_selector(task_model, labelled, data, config, kind, round_index, progress)
    with watch.timing("export"):
        bundle = export_bundle(
            model.to("cpu").eval(),
            parent=parent,
            target=data.target,
            labelled_ids=data.labelled.ids,
            labelled_features=features,
            gate_images=_spread(data.pool.images, config.export.gate_images),
            provenance=Provenance(
                round_index, data.labelled.classes, test_accuracy, method_name(kind, config)
            ),
            config=config,
        )
    return TrainedRound(bundle, train_accuracy, test_accuracy, watch.seconds)


def method_name(kind: SelectorKind, config: TrainConfig) -> str:
    """Returns what a bundle's manifest calls the method."""
    if kind == "assistant":
        return assistant_method(config.cotrain).name
    return "vaal" if kind == "vaal" else "task"


def _with_selector(
    task_model: ResNet18,
    labelled: TaskOutputs,
    data: RoundData,
    config: TrainConfig,
    kind: SelectorKind,
    round_index: int,
    progress: bool,
) -> AnyScoringModel:
    device = torch_device(config.device)
    seed = _round_seed(config, round_index)
    if kind == "vaal":
        vaal = train_vaal(
            data.labelled.images,
            data.pool.images,
            config.vaal,
            horizontal_flip=config.task.horizontal_flip,
            seed=derived_seed(seed, "vaal"),
            device=device,
            progress=progress,
        )
        return VaalScoringModel(task_model, vaal.vae, vaal.discriminator)
    if kind == "none":
        return TaskScoringModel(task_model)
    selector = cotrain(
        labelled,
        task_losses(labelled, data.labelled.labels),
        ask(task_model, data.pool.images, device=device, what="pool", progress=progress),
        config.cotrain,
        vae=config.vae,
        assistant=config.assistant,
        seed=derived_seed(seed, "cotrain"),
        progress=progress,
    )
    return ScoringModel(task_model, selector.scaling, selector.vae, selector.assistant)


def _round_seed(config: TrainConfig, round_index: int) -> int:
    return derived_seed(config.seed, "round", round_index)


def _spread(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Up to `count` of images (N, H, W, 3), evenly spaced."""
    at = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return images[at]
