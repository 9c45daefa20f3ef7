"""Run one round (Algorithm 1): train T, train a selector beside it, and export the model that scores a
pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topb_scorer.bundle import Bundle
from topb_trainer.config import TrainConfig
from topb_trainer.cotrain import cotrain, untrained_selector
from topb_trainer.data.sets import RoundData
from topb_trainer.errors import ExportGateError
from topb_trainer.export.bundle import export_bundle
from topb_trainer.export.frozen import FeatureSource, encoded_round
from topb_trainer.export.weights import keep_weights, load_weights
from topb_trainer.methods import SelectorKind, assistant_method
from topb_trainer.models.scoring import AssistantModel, ScoringModel, TaskModel, VaalModel
from topb_trainer.models.task_network import TaskNetwork
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.stopwatch import Stopwatch
from topb_trainer.task import (
    TaskOutputs,
    accuracy,
    accuracy_on,
    task_losses,
    task_outputs,
    train_task,
    untrained_task,
)
from topb_trainer.vaal import require_images, train_vaal


@dataclass(frozen=True)
class TrainedRound:
    """The result of a round."""

    bundle: Bundle
    train_accuracy: float
    """Accuracy of T on the labelled images without mirroring."""
    test_accuracy: float | None
    """Accuracy of T on the test images; None without a test set."""
    seconds: Mapping[str, float]
    """Seconds by part: "labelled_features", "selector" and "export". If the selector is trained on T's
    outputs for the pool, "selector" includes computing them."""


def train_round(
    data: RoundData, context: RoundContext, parent: Path, encoder: FeatureSource | None = None
) -> TrainedRound:
    """Train one round of AALU or of the configured ablation, and publish its bundle in `parent`.

    On the CPU, the same data, settings and seed give the same model id. If only a head is trained and `data`
    has features already, `encoder` is where they come from.

    Raises:
        TrainingDivergedError: a loss is no longer finite.
        ExportGateError: the exported graph does not reproduce the trained model. The weights are kept in
            `parent`, for `export_round`.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    data, encoder = _inputs(data, context, encoder)
    task_model = train_task(data.labelled, context)
    test_accuracy = None if data.test is None else accuracy_on(task_model, data.test, context)
    return finish_round(
        task_model,
        data,
        "assistant",
        context,
        test_accuracy=test_accuracy,
        parent=parent,
        encoder=encoder,
        keep_weights_on_failure=True,
    )


def _inputs(
    data: RoundData, context: RoundContext, encoder: FeatureSource | None
) -> tuple[RoundData, FeatureSource | None]:
    """Return what T is trained on: images, or the features of an encoder that is not trained."""
    if encoder is None and context.task.trains_head:
        return encoded_round(data, context)
    return data, encoder


def export_round(
    weights: Path,
    data: RoundData,
    context: RoundContext,
    parent: Path,
    encoder: FeatureSource | None = None,
) -> TrainedRound:
    """Export a round whose export failed, from the weights that `train_round` kept, without training.

    Raises:
        ConfigurationError: the weights cannot be read, or belong to another round.
        ExportGateError, BundleError: see `train_round`.
    """
    data, encoder = _inputs(data, context, encoder)
    task_model = untrained_task(data.labelled, context.config)
    selector = untrained_selector(task_model.feature_size, task_model.class_count, context.config)
    model = AssistantModel(task_model, selector.scaling, selector.vae, selector.assistant)
    load_weights(weights, model, data.labelled, context)
    model.eval().requires_grad_(False).to(context.device)
    test_accuracy = None if data.test is None else accuracy_on(task_model, data.test, context)
    labelled = task_outputs(task_model, data.labelled.images, context, name="labelled")
    watch = Stopwatch(context.device)
    return _exported(model, labelled, data, "assistant", context, watch, test_accuracy, parent, encoder)


def finish_round(
    task_model: TaskNetwork,
    data: RoundData,
    kind: SelectorKind,
    context: RoundContext,
    *,
    test_accuracy: float | None,
    parent: Path,
    encoder: FeatureSource | None = None,
    keep_weights_on_failure: bool = False,
) -> TrainedRound:
    """Train a selector beside a trained T, and publish the bundle of both in `parent`.

    Args:
        task_model: T, trained on `data.labelled`.
        data: the images of the round.
        kind: the selector to train.
        context: the round.
        test_accuracy: accuracy of T on the test set, for the manifest.
        parent: directory of bundles.
        encoder: the encoder, if it was not trained; `data` then holds its features in place of images.
        keep_weights_on_failure: whether to keep the weights in `parent` if the model cannot be exported.

    Raises:
        TrainingDivergedError, ExportGateError, BundleError: see `train_round`.
    """
    watch = Stopwatch(context.device)
    with watch.timing("labelled_features"):
        # An experiment shares the T of the first round between methods, and each export leaves it on the CPU.
        task_model.to(context.device)
        labelled = task_outputs(task_model, data.labelled.images, context, name="labelled")
    with watch.timing("selector"):
        model = _with_selector(task_model, labelled, data, kind, context)
    try:
        return _exported(model, labelled, data, kind, context, watch, test_accuracy, parent, encoder)
    except ExportGateError as error:
        if not keep_weights_on_failure:
            raise
        raise error.with_weights(keep_weights(model, data.labelled, context, parent)) from None


def _exported(
    model: ScoringModel,
    labelled: TaskOutputs,
    data: RoundData,
    kind: SelectorKind,
    context: RoundContext,
    watch: Stopwatch,
    test_accuracy: float | None,
    parent: Path,
    encoder: FeatureSource | None,
) -> TrainedRound:
    if encoder is None:
        features = labelled.features.cpu().numpy()
        model.feature_type = context.config.export.feature_type
        if model.feature_type == "float16":
            features = features.astype(np.float16).astype(np.float32)
    else:
        features, model.feature_type = data.labelled.images, encoder.feature_type
    train_accuracy = accuracy(labelled, data.labelled.labels)
    with watch.timing("export"):
        bundle = export_bundle(
            model.to("cpu").eval(),
            data,
            features,
            context,
            method=_method_name(kind, context.config),
            test_accuracy=test_accuracy,
            parent=parent,
            encoder=encoder,
        )
    return TrainedRound(bundle, train_accuracy, test_accuracy, watch.seconds)


def _with_selector(
    task_model: TaskNetwork, labelled: TaskOutputs, data: RoundData, kind: SelectorKind, context: RoundContext
) -> ScoringModel:
    if kind == "none":
        return TaskModel(task_model)
    if kind == "vaal":
        require_images(context.task)
        vaal = train_vaal(data.labelled.images, data.pool.images, context)
        return VaalModel(task_model, vaal.vae, vaal.discriminator)
    losses = task_losses(labelled, data.labelled.labels)
    unlabelled = task_outputs(task_model, data.pool.images, context, name="pool")
    selector = cotrain(labelled, losses, unlabelled, context)
    return AssistantModel(task_model, selector.scaling, selector.vae, selector.assistant)


def _method_name(kind: SelectorKind, config: TrainConfig) -> str:
    """Return the method's name for the manifest: a name of `METHODS`, or "task" without a selector."""
    if kind == "assistant":
        return assistant_method(config.cotrain).name
    return "vaal" if kind == "vaal" else "task"
