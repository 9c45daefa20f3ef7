"""Open the encoder that the settings name, and complete the settings with what it expects of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from topb.image_input import ResizeRule
from topb_scorer.pools.vectors import VectorLayout
from topb_trainer.config import NO_ENCODER, RESNET18, ImageConfig, KnownRule, TaskConfig, TrainConfig
from topb_trainer.encoders.factory import FactoryEncoder
from topb_trainer.encoders.graph import bundle_encoder, onnx_encoder, require_frozen
from topb_trainer.encoders.source import Encoder, GraphEncoder
from topb_trainer.encoders.timm_model import TimmEncoder
from topb_trainer.errors import ConfigurationError


def open_encoder(task: TaskConfig, image: ImageConfig) -> Encoder:
    """Open the encoder that `task.encoder` names, which is not resnet18. Weights are read later.

    Raises:
        ConfigurationError: there is no such encoder, or it cannot be used or trained as configured.
        ScorerError: the bundle is missing, incomplete or altered.
    """
    path = Path(task.encoder)
    if path.is_dir():
        require_frozen(task)
        return _of_its_own_size(bundle_encoder(path), image)
    if path.is_file() or path.suffix == ".onnx":
        require_frozen(task)
        return _of_its_own_size(onnx_encoder(path, image.resize), image)
    if ":" in task.encoder:
        return FactoryEncoder(task.encoder, task.weights)
    if len(path.parts) > 1:  # no name of timm has a slash
        raise ConfigurationError(
            f"there is no bundle or ONNX file at {task.encoder}; expected the path of one, "
            "package.module:factory, or the name of a model of timm",
            reason="ENCODER_UNKNOWN",
        )
    return TimmEncoder(task.encoder, task.weights)


def completed(config: TrainConfig) -> TrainConfig:
    """Return the settings, with those that follow from the encoder filled in.

    Raises:
        ConfigurationError, ScorerError: see `open_encoder`.
    """
    task, image = config.task.resolved(), config.image
    if task.encoder == NO_ENCODER:
        return replace(config, task=task)
    encoder = None if task.encoder == RESNET18 else open_encoder(task, image)
    if isinstance(encoder, GraphEncoder):
        own = encoder.input
        cover: KnownRule = ResizeRule.COVER_AND_CENTER_CROP
        resize: KnownRule = cover if own.resize is cover else ResizeRule.STRETCH
        image = replace(image, height=own.height, width=own.width, resize=resize)
        return replace(config, task=task, image=image)
    if encoder is not None:
        image = encoder.preprocessing.completing(image)
    if image.normalisation is None and not image.mean:
        labelled = task.encoder == RESNET18 and not task.trains_head
        image = replace(image, normalisation="labelled" if labelled else "imagenet")
    return replace(config, task=task, image=image)


def for_rows(config: TrainConfig, vectors: VectorLayout | None) -> TrainConfig:
    """Return the settings for sets of such rows. With vectors, there is no encoder, and T is a head.

    Args:
        config: the settings as given.
        vectors: the sizes of the vectors of the labelled set; None if it has images.

    Raises:
        ConfigurationError: with reason INVALID_CONFIGURATION if the settings name an encoder for vectors, or
            none for images.
    """
    task = config.task
    if vectors is None:
        if task.encoder == NO_ENCODER:
            raise ConfigurationError(
                "task.encoder is none, but the labelled set has images; name an encoder, or give vectors",
                reason="INVALID_CONFIGURATION",
            )
        return config
    if task.encoder not in (RESNET18, NO_ENCODER) or task.weights is not None or task.train == "all":
        raise ConfigurationError(
            f"the labelled set has {vectors}, which no encoder takes, but task.encoder is {task.encoder}, "
            f"task.weights {task.weights} and task.train {task.train}; leave them out",
            reason="INVALID_CONFIGURATION",
        )
    return replace(config, task=replace(task, encoder=NO_ENCODER, train="head"))


def _of_its_own_size(encoder: GraphEncoder, image: ImageConfig) -> GraphEncoder:
    """Return the encoder, whose graph decides about images, if the settings do not contradict it."""
    own = encoder.input
    if image.size not in (None, (own.height, own.width)) or image.resize not in (None, own.resize):
        raise ConfigurationError(
            f"the encoder takes images of {own.height} × {own.width} pixels, resized by the rule "
            f"{own.resize}, but image.height, width and resize are {image.height}, {image.width} and "
            f"{image.resize}; leave them out",
            reason="ENCODER_INPUT",
        )
    if image.normalisation is not None or image.mean:
        raise ConfigurationError(
            "the encoder is an ONNX graph, which normalises images itself; leave out image.normalisation, "
            "mean and deviation",
            reason="ENCODER_INPUT",
        )
    return encoder
