"""Write a bundle: graph, labelled features and manifest. It is published only if it passes its gates."""

from __future__ import annotations

import platform
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
from topb_scorer.pools.pool import DIGEST_BYTES
from topb_trainer.data.sets import LabelledSet, RoundData
from topb_trainer.export import gates
from topb_trainer.export.graph import onnx_graph
from topb_trainer.models.scoring import AnyScoringModel
from topb_trainer.runtime.context import RoundContext

_DECLARED_STRATEGIES = ("entropy", "least_confidence", "margin", "random")
"""The query strategies that every manifest declares, in addition to the one that ranks by the selector's
score.

The scorer reads the declared names only to decide which strategies may use the output `score`.
"""

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
    model: AnyScoringModel,
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
        ExportGateError: the graph does not reproduce the model; nothing was published.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    with unpublished_directory(parent) as directory:
        graph = directory / GRAPH
        graph.write_bytes(onnx_graph(model, data.target.height, data.target.width))
        path = parent / sha256_of(graph)[:MODEL_ID_LENGTH]
        if path.exists():
            return open_bundle(path)
        real = gates.evenly_spaced(data.pool.images, context.config.export.gate_images)  # (G, H, W, 3)
        measured = gates.measure(model, graph, real, context.config.export.difference_limit)
        gates.require(measured)
        pq.write_table(_labelled_table(data.labelled, labelled_features), directory / LABELLED)
        manifest = bundle_pb2.Bundle(
            schema_version=SCHEMA_VERSION,
            model_id=path.name,
            method=method,
            round=context.index,
            input=data.target.to_message(),
            classes=data.labelled.classes,
            outputs=_outputs(model),
            strategies=sorted({*_DECLARED_STRATEGIES, *([model.strategy] if model.strategy else [])}),
            labelled_count=len(data.labelled.ids),
            test_accuracy=test_accuracy,
            seed=context.config.seed,
            library_versions=_library_versions(),
            files=[_file(graph), _file(directory / LABELLED)],
            gates=[
                bundle_pb2.GateMeasurement(
                    name=gate.name, measured=gate.measured, limit=gate.limit, meaning=gate.meaning
                )
                for gate in measured
            ],
        )
        manifest.create_time.GetCurrentTime()
        json_format.ParseDict(context.config.as_dict(), manifest.configuration)
        text = json_format.MessageToJson(manifest, always_print_fields_with_no_presence=True)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
        try:
            publish_directory(directory, path)
        except OSError:
            # Another process may have published the same model in the meantime.
            if not path.exists():
                raise
    return open_bundle(path)


def _labelled_table(labelled: LabelledSet, features: NDArray[np.float32]) -> pa.Table:
    flat = pa.array(features.ravel(), pa.float32())
    return pa.table(
        {
            "id": pa.array(labelled.ids, pa.string()),
            "digest": pa.array(labelled.digests, pa.binary(DIGEST_BYTES)),
            "feature": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
    )


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
    versions = {name: metadata.version(name) for name in _RECORDED_LIBRARIES}
    # On a GPU machine the distribution is called onnxruntime-gpu, so ask the module for its version.
    return versions | {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
