"""Write a trained model as a bundle: two graphs, labelled features and manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_trainer.data.sets import RoundData
from topb_trainer.encoders.recorded import recorded_settings
from topb_trainer.export import gates
from topb_trainer.export.frozen import FeatureSource
from topb_trainer.export.graph import head_graphs, onnx_graphs
from topb_trainer.export.publishing import UNIVERSAL_STRATEGIES, LabelledFeatures, publish_bundle
from topb_trainer.models.scoring import ScoringModel
from topb_trainer.runtime.context import RoundContext

_FEATURE_TYPES = {
    "float32": bundle_pb2.FEATURE_TYPE_FLOAT32,
    "float16": bundle_pb2.FEATURE_TYPE_FLOAT16,
}


def export_bundle(
    model: ScoringModel,
    data: RoundData,
    labelled_features: NDArray[np.float32],
    context: RoundContext,
    *,
    method: str,
    test_accuracy: float | None,
    parent: Path,
    encoder: FeatureSource | None = None,
) -> Bundle:
    """Publish the bundle of a trained model as `parent/<model id>`, and open it.

    If `parent` already has a bundle of this model, it is verified and returned unchanged.

    Args:
        model: T and its selector, on the CPU, in evaluation mode.
        data: the images of the round. torch and ONNX must agree on the images of its pool.
        labelled_features: float32 (N, D), features of T for the labelled images.
        context: the round, whose settings the manifest records.
        method: name of the method, such as "aalu" or "vaal"; "task" without a selector.
        test_accuracy: accuracy of T on the test set; None without a test set.
        parent: directory of bundles, which is created if it is missing.
        encoder: the encoder, if it was not trained; `data` then holds its features in place of images.

    Raises:
        ExportGateError: the graphs do not reproduce the model; nothing was published.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    target = data.target if isinstance(data.target, ImageInput) else None
    if encoder is None:
        assert target is not None, "the encoder was trained, so there are images"
        graphs = onnx_graphs(model, target.height, target.width)
    else:
        graphs = head_graphs(model, encoder.graph, encoder.feature_size)
    config = context.config
    manifest = bundle_pb2.Bundle(
        method=method,
        round=context.index,
        input=None if target is None else target.to_message(),
        classes=data.labelled.classes,
        strategies=sorted({*UNIVERSAL_STRATEGIES, *([model.strategy] if model.strategy else [])}),
        test_accuracy=test_accuracy,
        seed=config.seed,
        feature_type=_FEATURE_TYPES[model.feature_type],
        encoder_frozen=encoder is not None,
    )
    json_format.ParseDict(recorded_settings(config), manifest.configuration)

    def measured() -> list[gates.Gate]:
        limit = config.export.difference_limit
        real = gates.evenly_spaced(data.pool.images, config.export.gate_images)  # (G, H, W, 3) or (G, D)
        if encoder is None:
            return gates.measure(model, graphs, real, limit)
        assert graphs.head is not None, "a trained model has at least a classifier"
        return [*encoder.gates, *gates.measure_head(model, graphs.head, real, limit)]

    return publish_bundle(
        graphs,
        LabelledFeatures(data.labelled.ids, data.labelled.digests, labelled_features),
        manifest,
        model.meanings if target else {**model.meanings, "features": "the vectors of the pool"},
        measured=measured,
        differs="the exported graph differs from the trained model",
        parent=parent,
    )
