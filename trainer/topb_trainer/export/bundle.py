"""Writes a bundle: graph, labelled features and manifest, published only when its gates were passed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb.v1 import bundle_pb2
from topb_scorer.bundle import (
    GRAPH,
    LABELLED,
    MANIFEST,
    MODEL_ID_LENGTH,
    SCHEMA_VERSION,
    Bundle,
    open_bundle,
    sha256_of,
)
from topb_scorer.durable import publish_directory, unpublished_directory
from topb_trainer.config import TrainConfig
from topb_trainer.export import gates
from topb_trainer.export.graph import onnx_graph
from topb_trainer.models.scoring import AnyScoringModel
from topb_trainer.runtime.seeding import derived_seed

STRATEGIES = ("entropy", "least_confidence", "margin", "random")
"""What probabilities let a scorer select by; the model's own score adds a strategy of its own."""

_RANDOM_IMAGES = 64

_LIBRARIES = (
    "topb",
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "numpy",
    "pillow",
    "simplejpeg",
    "pyarrow",
)


@dataclass(frozen=True)
class Provenance:
    """What a bundle says of how it came about, beside its configuration."""

    round: int
    """0 for the round trained on the initial labelled set."""
    classes: Sequence[str]
    """Names, C of them."""
    test_accuracy: float | None
    """Share of the test images classified rightly; None where there was no test set."""
    method: str = "aalu"
    """What trained the selector, such as "aalu", "adv_vae" or "vaal"; "task" where there is none."""


def export_bundle(
    model: AnyScoringModel,
    *,
    parent: Path,
    target: ImageInput,
    labelled_ids: Sequence[str],
    labelled_features: NDArray[np.float32],
    gate_images: NDArray[np.uint8],
    provenance: Provenance,
    config: TrainConfig,
) -> Bundle:
    """Publishes the bundle of a trained model as `parent/<model id>` and opens it.

    A bundle of this model that stands there already is verified and returned as it is.

    Args:
        model: the task model, and what scores beside it, in evaluation mode.
        parent: directory of bundles; made where missing.
        target: what the model takes for one image.
        labelled_ids: of the N labelled images.
        labelled_features: float32 (N, D), T's features of them.
        gate_images: uint8 (M, H, W, 3), real images that torch and ONNX must agree on.
        provenance: what the manifest tells beside the configuration.
        config: the resolved configuration.

    Raises:
        ExportGateError: the graph does not compute what the model computes; nothing was published.
        BundleError: a bundle of this model stands there and is torn or altered.
    """
    with unpublished_directory(parent) as directory:
        (directory / GRAPH).write_bytes(onnx_graph(model, target.height, target.width))
        path = parent / sha256_of(directory / GRAPH)[:MODEL_ID_LENGTH]
        if path.exists():
            return open_bundle(path)
        measured = gates.measure(
            model, directory / GRAPH, gate_images, _random_images(target, len(gate_images), config.seed)
        )
        gates.require(measured)
        pq.write_table(_labelled_table(labelled_ids, labelled_features), directory / LABELLED)
        manifest = _manifest(
            path.name, directory, model, target, len(labelled_ids), measured, provenance, config
        )
        text = json_format.MessageToJson(manifest, always_print_fields_with_no_presence=True)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
        try:
            publish_directory(directory, path)
        except OSError:
            # Another run may have published the same model meanwhile.
            if not path.exists():
                raise
    return open_bundle(path)


def _labelled_table(ids: Sequence[str], features: NDArray[np.float32]) -> pa.Table:
    flat = pa.array(features.ravel(), pa.float32())
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "feature": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
    )


def _manifest(
    model_id: str,
    directory: Path,
    model: AnyScoringModel,
    target: ImageInput,
    labelled_count: int,
    measured: list[gates.Gate],
    provenance: Provenance,
    config: TrainConfig,
) -> bundle_pb2.Bundle:
    manifest = bundle_pb2.Bundle(
        schema_version=SCHEMA_VERSION,
        model_id=model_id,
        method=provenance.method,
        round=provenance.round,
        input=target.to_message(),
        classes=provenance.classes,
        outputs=_outputs(model),
        strategies=sorted({*STRATEGIES, *([model.strategy] if model.strategy else [])}),
        labelled_count=labelled_count,
        test_accuracy=provenance.test_accuracy,
        seed=config.seed,
        library_versions=_library_versions(),
        files=[_file(directory / GRAPH), _file(directory / LABELLED)],
        gates=[
            bundle_pb2.GateMeasurement(
                name=gate.name, measured=gate.measured, limit=gate.limit, meaning=gate.meaning
            )
            for gate in measured
        ],
    )
    manifest.create_time.GetCurrentTime()
    json_format.ParseDict(_with_lists(config.as_dict()), manifest.configuration)
    return manifest


def _outputs(model: AnyScoringModel) -> list[bundle_pb2.ModelOutput]:
    return [
        bundle_pb2.ModelOutput(name="score", meaning=model.score_meaning),
        bundle_pb2.ModelOutput(
            name="probabilities",
            meaning="the task model's prediction, by class",
            shape=[model.task_model.class_count],
        ),
        bundle_pb2.ModelOutput(
            name="features",
            meaning="the task model's pooled features before its last layer",
            shape=[model.task_model.feature_size],
        ),
    ]


def _file(path: Path) -> bundle_pb2.BundleFile:
    return bundle_pb2.BundleFile(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _library_versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    # Its distribution has another name on a GPU machine.
    return versions | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}


def _random_images(target: ImageInput, count: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(derived_seed(seed, "gate images"))
    shape = (min(count, _RANDOM_IMAGES), target.height, target.width, 3)
    return random.integers(0, 256, shape, np.uint8)


def _with_lists(value: Any) -> Any:
    """The same with lists for tuples, which protobuf's Struct does not take."""
    if isinstance(value, dict):
        return {key: _with_lists(one) for key, one in value.items()}
    return [_with_lists(one) for one in value] if isinstance(value, tuple) else value
