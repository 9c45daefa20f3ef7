"""Publish an imported model as a bundle, if it computes the same as the model that was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from PIL import Image

from topb.v1 import bundle_pb2
from topb_scorer.bundle import IMPORTED_METHOD, Bundle
from topb_scorer.scoring.model_session import HEAD_BATCH_SIZE
from topb_scorer.scoring.session import GraphSession
from topb_trainer.errors import ModelImportError
from topb_trainer.export.gates import (
    Gate,
    extreme_images,
    gates_of,
    in_first_order,
    other_order,
    row_independence,
)
from topb_trainer.export.publishing import UNIVERSAL_STRATEGIES, LabelledFeatures, publish_bundle
from topb_trainer.importing.labelled import LabelledImages
from topb_trainer.importing.onnx_model import ImportedModel, Outputs

CHECKED_IMAGES = 64
"""Number of images on which model and bundle must agree. Extreme images made from them are checked too."""
_DIFFERENCE_LIMIT = 1e-4
"""As for the export of a trained model; the same kernels usually give the same bits."""
_FLOAT16_LIMIT = 2.0**-7
"""Eight steps between neighbouring float16 numbers."""
_BATCH = 32
_NOISE_SIZES = (2, 4, 8, 16, 32, 64)

_MEANINGS = {
    "features": "the value {features} of the imported model",
    "logits": "the value {logits} of the imported model, by class",
    "class_probabilities": "the value {probabilities} of the imported model, by class",
    "probabilities": "the imported model's prediction, by class",
}


@dataclass(frozen=True)
class CheckedImages:
    """The images on which model and bundle are compared."""

    images: NDArray[np.uint8]
    """(N, H, W, 3), of the encoder's size."""
    described: str
    """What they are, such as "images of photos.parquet"."""


def synthetic_images(height: int, width: int) -> CheckedImages:
    """Return images of smooth noise, always the same, for want of better ones."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(CHECKED_IMAGES):
        size = _NOISE_SIZES[index % len(_NOISE_SIZES)]
        noise = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
        images.append(np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)))
    return CheckedImages(np.stack(images), "synthetic images")


def publish_imported(
    model: ImportedModel,
    class_names: Sequence[str],
    labelled: LabelledImages | None,
    checked: CheckedImages,
    parent: Path,
) -> Bundle:
    """Publish the bundle of an imported model in `parent`, and open it.

    Args:
        model: the model.
        class_names: the names of its C classes.
        labelled: the images that are labelled already, of the encoder's size; None for none.
        checked: the images on which model and bundle must agree.
        parent: directory of bundles.

    Raises:
        ModelImportError: the model mixes the images of a batch, or what it gives are not probabilities.
        ExportGateError: the bundle computes something else than the model; nothing was published.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    settings = model.settings
    manifest = bundle_pb2.Bundle(
        method=IMPORTED_METHOD,
        encoder_frozen=True,
        input=model.rule.target.to_message(),
        classes=class_names,
        strategies=sorted(UNIVERSAL_STRATEGIES),
        feature_type=(
            bundle_pb2.FEATURE_TYPE_FLOAT16 if model.is_float16 else bundle_pb2.FEATURE_TYPE_FLOAT32
        ),
    )
    json_format.ParseDict({"import": settings}, manifest.configuration)
    encoder = GraphSession(model.graphs.encoder, batch_size=_BATCH)
    (width,) = model.graphs.encoder_shapes["features"]
    if labelled is None:
        features = LabelledFeatures((), (), np.zeros((0, width), np.float32))
    else:
        computed = encoder.apply({"images": labelled.images})["features"]
        features = LabelledFeatures(labelled.ids, labelled.digests, computed)
    return publish_bundle(
        model.graphs,
        features,
        manifest,
        {name: meaning.format_map(settings) for name, meaning in _MEANINGS.items()},
        measured=lambda: _measured(model, encoder, checked),
        differs="the bundle computes something else than the model",
        parent=parent,
    )


def _measured(model: ImportedModel, encoder: GraphSession, checked: CheckedImages) -> list[Gate]:
    extreme = extreme_images(checked.images)
    images = np.concatenate([checked.images, extreme])  # (N + M, H, W, 3)
    graph = model.graphs.head
    head = None if graph is None else GraphSession(graph, batch_size=HEAD_BATCH_SIZE)
    found = _applied(encoder, head, images)
    order = other_order(len(images))
    in_other_batches = in_first_order(_applied(encoder, head, images[order]), order)
    independence = row_independence(found, in_other_batches)
    # NaN differs from itself; the gates say that values are not finite.
    if not independence.passed and all(np.isfinite(values).all() for values in found.values()):
        raise _mixes_rows(model, independence, len(images))
    expected = model.original(images)
    _check_probabilities(model, expected)
    limit = _FLOAT16_LIMIT if model.is_float16 else _DIFFERENCE_LIMIT
    on = f"over {len(checked.images)} {checked.described} and {len(extreme)} extreme ones"
    limits = dict.fromkeys(found, limit)
    gates = gates_of(expected, found, on, limits, original="the model", copy="the bundle")
    return [*gates, independence]


def _applied(encoder: GraphSession, head: GraphSession | None, images: NDArray[np.uint8]) -> Outputs:
    encoded = encoder.apply({"images": images})
    return encoded if head is None else encoded | head.apply(encoded)


def _mixes_rows(model: ImportedModel, independence: Gate, count: int) -> ModelImportError:
    nodes = f" In the graph, {'; '.join(model.mixing[:3])}." if model.mixing else ""
    return ModelImportError(
        f"the outputs of {independence.measured:.0f} of {count} images depend on the other images of their "
        f"batch; expected outputs that depend on the image alone.{nodes} Export the model in evaluation mode "
        "(model.eval() in PyTorch), without dynamic quantisation",
        reason="IMPORT_MIXES_IMAGES",
    )


def _check_probabilities(model: ImportedModel, expected: Mapping[str, NDArray[np.float32]]) -> None:
    name = "logits" if model.gives_logits else "class_probabilities"
    if name not in expected or not np.isfinite(expected[name]).all():
        return
    values = expected[name].astype(np.float64)  # (N, C)
    tolerance = _FLOAT16_LIMIT if model.is_float16 else 1e-3
    between = ((values > -tolerance) & (values < 1 + tolerance)).all()
    are_probabilities = bool(between and (np.abs(values.sum(axis=1) - 1) < tolerance).all())
    if are_probabilities == model.gives_logits:
        kind, is_not, option = (
            ("logits", "all are from 0 to 1, and each row adds up to 1", "--probabilities")
            if are_probabilities
            else ("probabilities", "not all are from 0 to 1, or a row does not add up to 1", "--logits")
        )
        raise ModelImportError(
            f"{model.settings[name.removeprefix('class_')]} does not hold {kind}: {is_not}; is it to be "
            f"given with {option}?",
            reason="IMPORT_PROBABILITIES",
        )
