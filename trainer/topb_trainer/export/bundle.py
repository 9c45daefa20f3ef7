"""Write a bundle: two graphs, labelled features and manifest. It is published only if it passes its gates."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format
from numpy.typing import NDArray

from topb.v1 import bundle_pb2
from topb_scorer.bundle import (
    ENCODER,
    HEAD,
    LABELLED,
    MANIFEST,
    SCHEMA_VERSION,
    Bundle,
    encoder_id_of,
    model_id_of,
    open_bundle,
    sha256_of,
)
from topb_scorer.durable import publish_directory, unpublished_directory
from topb_scorer.pools.pool import DIGEST_BYTES
from topb_trainer.data.sets import LabelledSet, RoundData
from topb_trainer.export import gates
from topb_trainer.export.graph import Graphs, onnx_graphs
from topb_trainer.models.scoring import ScoringModel
from topb_trainer.runtime.context import RoundContext

_DECLARED_STRATEGIES = ("entropy", "least_confidence", "margin", "random")
"""The query strategies that every manifest declares, in addition to the one that ranks by the selector's
score.

The scorer reads the declared names only to decide which strategies may use the output `score`.
"""

_FEATURE_TYPES = {
    "float32": bundle_pb2.FEATURE_TYPE_FLOAT32,
    "float16": bundle_pb2.FEATURE_TYPE_FLOAT16,
}
_RECORDED_LIBRARIES = (
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


def export_bundle(
    model: ScoringModel,
    data: RoundData,
    labelled_features: NDArray[np.float32],
    context: RoundContext,
    *,
    method: str,
    test_accuracy: float | None,
    parent: Path,
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

    Raises:
        ExportGateError: the graphs do not reproduce the model; nothing was published.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    with unpublished_directory(parent) as directory:
        graphs = onnx_graphs(model, data.target.height, data.target.width)
        (directory / ENCODER).write_bytes(graphs.encoder)
        (directory / HEAD).write_bytes(graphs.head)
        labelled = _labelled_table(data.labelled, labelled_features)
        pq.write_table(labelled, directory / LABELLED)
        manifest = bundle_pb2.Bundle(
            schema_version=SCHEMA_VERSION,
            method=method,
            round=context.index,
            input=data.target.to_message(),
            classes=data.labelled.classes,
            outputs=_outputs(model, graphs.head_shapes | {"features": graphs.encoder_shapes["features"]}),
            strategies=sorted({*_DECLARED_STRATEGIES, *([model.strategy] if model.strategy else [])}),
            labelled_count=len(data.labelled.ids),
            test_accuracy=test_accuracy,
            seed=context.config.seed,
            library_versions=_library_versions(),
            files=[_file(directory / name) for name in (ENCODER, HEAD, LABELLED)],
            feature_type=_FEATURE_TYPES[model.feature_type],
            encoder_outputs=_outputs(model, graphs.encoder_shapes),
            labelled_sha256=_content_sha256(labelled),
        )
        json_format.ParseDict(context.config.as_dict(), manifest.configuration)
        manifest.encoder_id = encoder_id_of(manifest)
        manifest.model_id = model_id_of(manifest)
        path = parent / manifest.model_id
        if path.exists():
            return open_bundle(path)
        manifest.gates.extend(_gates(model, graphs, data, context))
        manifest.create_time.GetCurrentTime()
        text = json_format.MessageToJson(manifest, always_print_fields_with_no_presence=True)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
        try:
            publish_directory(directory, path)
        except OSError:
            # Another process may have published the same model in the meantime.
            if not path.exists():
                raise
    return open_bundle(path)


def _gates(
    model: ScoringModel, graphs: Graphs, data: RoundData, context: RoundContext
) -> list[bundle_pb2.GateMeasurement]:
    """Measure the gates and require that they are passed."""
    config = context.config.export
    real = gates.evenly_spaced(data.pool.images, config.gate_images)  # (G, H, W, 3)
    measured = gates.measure(model, graphs, real, config.difference_limit)
    gates.require(measured)
    return [
        bundle_pb2.GateMeasurement(
            name=gate.name, measured=gate.measured, limit=gate.limit, meaning=gate.meaning
        )
        for gate in measured
    ]


def _labelled_table(labelled: LabelledSet, features: NDArray[np.float32]) -> pa.Table:
    flat = pa.array(features.ravel(), pa.float32())
    return pa.table(
        {
            "id": pa.array(labelled.ids, pa.string()),
            "digest": pa.array(labelled.digests, pa.binary(DIGEST_BYTES)),
            "feature": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
    )


def _content_sha256(table: pa.Table) -> str:
    """Return a digest of a table's contents. A Parquet file also holds the version of its writer."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _outputs(model: ScoringModel, shapes: Mapping[str, tuple[int, ...]]) -> list[bundle_pb2.ModelOutput]:
    return [
        bundle_pb2.ModelOutput(name=name, meaning=model.meanings[name], shape=shape)
        for name, shape in shapes.items()
    ]


def _file(path: Path) -> bundle_pb2.BundleFile:
    return bundle_pb2.BundleFile(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _library_versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in _RECORDED_LIBRARIES}
    # On a GPU machine the distribution is called onnxruntime-gpu, so ask the module for its version.
    return versions | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
