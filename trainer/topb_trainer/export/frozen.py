"""Export an encoder that is not trained, and compute the features of all images of a round with it, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topb.image_input import ImageInput
from topb_scorer.pools.vectors import VectorLayout
from topb_scorer.scoring.session import GraphSession
from topb_trainer.config import RESNET18, TrainConfig
from topb_trainer.data.mapped import RowFile
from topb_trainer.data.sets import Dataset, LabelledSet, RoundData, UnlabelledSet
from topb_trainer.encoders.opening import open_encoder
from topb_trainer.encoders.resnet18 import frozen_resnet18
from topb_trainer.encoders.source import GraphEncoder, TorchEncoder, normalisation_moments
from topb_trainer.errors import ConfigurationError, InvalidDataError
from topb_trainer.export import gates
from topb_trainer.export.gates import Gate
from topb_trainer.export.graph import encoder_graph
from topb_trainer.models.resnet import Normalisation
from topb_trainer.models.scoring import FeatureType, rounded
from topb_trainer.models.task_network import ImageEncoder
from topb_trainer.runtime.context import RoundContext
from topb_trainer.runtime.progress import bar
from topb_trainer.runtime.seeding import reproducible

_WEIGHTS_SEED = 0
"""Seeds the weights of an encoder that has random ones: they are the same in all rounds and experiments."""
_BATCH = 32
_BATCHES_PER_STEP = 8


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that is not trained, as the graph that the scorer runs."""

    graph: bytes
    """Maps `images`, uint8 (N, height, width, 3), to `features`, float32 (N, D)."""
    input: ImageInput
    feature_size: int
    """The number D of features."""
    feature_type: FeatureType
    """The precision to which the graph rounds its features."""
    gates: tuple[Gate, ...]
    """The gates that the graph has passed."""

    def features(self, images: NDArray[np.uint8], name: str, context: RoundContext) -> NDArray[np.float32]:
        """Return the features that the scorer computes, float32 (N, D), mapped from a file.

        Args:
            images: uint8 (N, H, W, 3).
            name: name of the images in the progress bar.
            context: the round, which has the device.
        """
        session = GraphSession(self.graph, device=context.config.device, batch_size=_BATCH)
        step = _BATCH * _BATCHES_PER_STEP
        with RowFile((self.feature_size,), np.float32) as file:
            for start in bar(
                range(0, len(images), step), f"features of {name}", "batch", show=context.progress
            ):
                file.append(session.apply({"images": images[start : start + step]})["features"])
            return file.mapped()

    def of_labelled(self, images: LabelledSet, name: str, context: RoundContext) -> LabelledSet:
        """Return a labelled or a test set with features in place of images.

        Raises:
            InvalidDataError: with reason FEATURES_NOT_FINITE.
        """
        features = self.features(images.images, name, context)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if bad.size:
            raise InvalidDataError(
                f"the encoder gives features that are not finite for {bad.size} of {len(features)} {name} "
                f"images, such as {images.ids[bad[0]]}; leave them out, or use another encoder",
                reason="FEATURES_NOT_FINITE",
                id=images.ids[bad[0]],
            )
        return replace(images, images=features)

    def of_pool(self, pool: UnlabelledSet, context: RoundContext) -> UnlabelledSet:
        """Return a pool with features in place of images, without the images that the scorer would skip.

        Raises:
            InvalidDataError: with reason FEATURES_NOT_FINITE if no image is left.
        """
        features = self.features(pool.images, "pool", context)
        finite = np.asarray(np.isfinite(features).all(axis=1))
        if finite.all():
            return replace(pool, images=features)
        if not finite.any():
            raise InvalidDataError(
                f"the encoder gives features that are not finite for all {len(features)} images of the pool; "
                "use another encoder",
                reason="FEATURES_NOT_FINITE",
            )
        skipped = Counter(pool.skipped) + Counter({"SCORE_NOT_FINITE": int((~finite).sum())})
        ids = tuple(id_ for id_, kept in zip(pool.ids, finite.tolist(), strict=True) if kept)
        return replace(pool, ids=ids, images=features[finite], skipped=dict(sorted(skipped.items())))


@dataclass(frozen=True)
class GivenVectors:
    """Stands for the encoder where the sets have vectors instead of images."""

    feature_size: int
    """The number D of elements of a vector."""
    feature_type: FeatureType
    """The precision to which the vectors are rounded."""
    graph: bytes = b""
    gates: tuple[Gate, ...] = ()

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (N, D) as the scorer rounds them."""
        return rows.astype(np.float16).astype(np.float32) if self.feature_type == "float16" else rows


def freeze(config: TrainConfig, target: ImageInput, real: Callable[[], NDArray[np.uint8]]) -> FrozenEncoder:
    """Return the encoder that the settings name, exported unless it is a graph, if it passes its gates.

    Args:
        config: the settings.
        target: the size of the images and how they are resized, which a graph has to agree with.
        real: returns images of the pool, uint8 (N, H, W, 3), some of which the gates use. It is not called
            for the encoder of a bundle, which has passed them.

    Raises:
        ConfigurationError, ScorerError: the encoder or its weights cannot be used.
        ExportGateError: the graph does not reproduce the module, its features are not finite, or the features
            of an image depend on other images.
    """
    encoder = None if config.task.encoder == RESNET18 else open_encoder(config.task, config.image)
    if isinstance(encoder, GraphEncoder):
        if encoder.input != target:
            raise ConfigurationError(
                f"the encoder takes {encoder.input}, but the images are {target}", reason="ENCODER_INPUT"
            )
        feature_type: FeatureType = "float16" if encoder.float16 else "float32"
        if encoder.passed:
            passed = tuple(
                Gate(gate.name, gate.measured, gate.limit, gate.meaning) for gate in encoder.passed
            )
            return FrozenEncoder(encoder.graph, target, encoder.feature_size, feature_type, passed)
        graph, feature_size, original = encoder.graph, encoder.feature_size, None
    else:
        feature_type = config.export.feature_type
        module = _module(encoder, config, target)
        graph = encoder_graph(module, feature_type, target.height, target.width)
        feature_size, original = module.feature_size, partial(_rounded_features, module, feature_type)
    measured = gates.measure_encoder(
        graph,
        original,
        gates.evenly_spaced(real(), config.export.gate_images),
        config.export.difference_limit,
        float16=feature_type == "float16",
    )
    gates.require(
        measured,
        "the exported encoder differs from its module, its features are not finite, or it mixes the images "
        "of a batch, as batch norm in training mode does",
    )
    return FrozenEncoder(graph, target, feature_size, feature_type, tuple(measured))


def encoded_round(data: RoundData, context: RoundContext) -> tuple[RoundData, FeatureSource]:
    """Freeze the encoder, and return the round with features in place of images. Vectors are features.

    Raises:
        ConfigurationError, ScorerError, ExportGateError: see `freeze`.
        InvalidDataError: with reason FEATURES_NOT_FINITE.
    """
    if isinstance(data.target, VectorLayout):
        given = GivenVectors(data.target.width, context.config.export.feature_type)
        rounded_data = replace(
            data,
            labelled=replace(data.labelled, images=given.of(data.labelled.images)),
            pool=replace(data.pool, images=given.of(data.pool.images)),
            test=None if data.test is None else replace(data.test, images=given.of(data.test.images)),
        )
        return rounded_data, given
    encoder = freeze(context.config, data.target, lambda: data.pool.images)
    encoded = replace(
        data,
        labelled=encoder.of_labelled(data.labelled, "labelled", context),
        pool=encoder.of_pool(data.pool, context),
        test=None if data.test is None else encoder.of_labelled(data.test, "test", context),
    )
    return encoded, encoder


def encoded_dataset(data: Dataset, context: RoundContext) -> tuple[Dataset, FeatureSource]:
    """Freeze the encoder, and return the data set with features in place of images. See `encoded_round`."""
    if isinstance(data.target, VectorLayout):
        given = GivenVectors(data.target.width, context.config.export.feature_type)
        train, test = (replace(part, images=given.of(part.images)) for part in (data.train, data.test))
        return replace(data, train=train, test=test), given
    encoder = freeze(context.config, data.target, lambda: data.train.images)
    train = encoder.of_labelled(data.train, "training", context)
    return replace(data, train=train, test=encoder.of_labelled(data.test, "test", context)), encoder


FeatureSource = FrozenEncoder | GivenVectors
"""What the features come from if only a head is trained."""


def _module(encoder: TorchEncoder | None, config: TrainConfig, target: ImageInput) -> ImageEncoder:
    """Return the torch module of an encoder; None stands for resnet18."""
    moments = normalisation_moments(config.image)
    if moments is None:
        raise ConfigurationError(
            "image.normalisation is labelled, with which the encoder would change from round to round, but "
            "--task.train head keeps it as it is; give imagenet, or image.mean and image.deviation",
            reason="INVALID_CONFIGURATION",
        )
    normalisation, size = Normalisation(*moments), (target.height, target.width)
    with reproducible(_WEIGHTS_SEED, torch.device("cpu")):
        if encoder is None:
            module = frozen_resnet18(config.task, normalisation, *size)
        else:
            module = encoder.build(normalisation, *size)
    return module.eval().requires_grad_(False)


def _rounded_features(module: ImageEncoder, feature_type: FeatureType, images: Tensor) -> Tensor:
    return rounded(module(images), feature_type)
