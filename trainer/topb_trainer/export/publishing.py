"""Publish graphs, manifest and labelled set as a bundle, if it passes its gates. It needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from topb_trainer.export.gates import Gate, require
from topb_trainer.runtime.libraries import library_versions

UNIVERSAL_STRATEGIES = ("entropy", "least_confidence", "margin", "random")
"""The query strategies that every manifest declares, in addition to the one that ranks by the selector's
score.

The scorer reads the declared names only to decide which strategies may use the output `score`.
"""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Graphs:
    """The bytes of two ONNX files, and the shapes of their outputs for one row, by name."""

    encoder: bytes
    """Maps `images`, uint8 (N, height, width, 3) for any N, to `features`, float32 (N, D), and others. Empty
    if the pools are vectors."""
    head: bytes | None
    """Maps the encoder's outputs to `probabilities`, float32 (N, C), and, with a selector, `score` (N). None
    if the model has only features."""
    encoder_shapes: Shapes
    head_shapes: Shapes


@dataclass(frozen=True)
class LabelledFeatures:
    """The images on which a model was trained, as the scorer uses them."""

    ids: Sequence[str]
    """L distinct ids."""
    digests: Sequence[bytes]
    """L content digests of the images as they were given."""
    features: NDArray[np.float32]
    """(L, D)."""


def publish_bundle(
    graphs: Graphs,
    labelled: LabelledFeatures,
    manifest: bundle_pb2.Bundle,
    meanings: Mapping[str, str],
    *,
    measured: Callable[[], list[Gate]],
    differs: str,
    parent: Path,
) -> Bundle:
    """Publish a bundle as `parent/<model id>`, and open it.

    If `parent` already has a bundle of this model, it is verified and returned unchanged, without a look at
    the gates.

    Args:
        graphs: the model.
        labelled: its labelled set.
        manifest: what is not derived from the other arguments: method, round, input, classes, strategies,
            test accuracy, seed, configuration and the type of the features.
        meanings: the outputs of both graphs in words, by name.
        measured: measures the gates.
        differs: what it means that a gate is not passed, for the error.
        parent: directory of bundles, which is created if it is missing.

    Raises:
        ExportGateError: a gate is not passed; nothing was published.
        BundleError: `parent` already has a bundle of this model, and it is damaged.
    """
    with unpublished_directory(parent) as directory:
        if graphs.encoder:
            (directory / ENCODER).write_bytes(graphs.encoder)
        if graphs.head is not None:
            (directory / HEAD).write_bytes(graphs.head)
        table = _labelled_table(labelled)
        pq.write_table(table, directory / LABELLED)
        all_shapes = {**graphs.head_shapes, "features": graphs.encoder_shapes["features"]}
        complete = bundle_pb2.Bundle(
            schema_version=SCHEMA_VERSION,
            outputs=_outputs(meanings, all_shapes),
            encoder_outputs=_outputs(meanings, graphs.encoder_shapes),
            labelled_count=len(labelled.ids),
            labelled_sha256=_content_sha256(table),
            library_versions=library_versions(),
            files=[
                _file(directory / name) for name in (ENCODER, HEAD, LABELLED) if (directory / name).exists()
            ],
        )
        complete.MergeFrom(manifest)
        complete.encoder_id = encoder_id_of(complete)
        complete.model_id = model_id_of(complete)
        path = parent / complete.model_id
        if path.exists():
            return open_bundle(path)
        complete.gates.extend(_passed(measured(), differs))
        complete.create_time.GetCurrentTime()
        text = json_format.MessageToJson(complete, always_print_fields_with_no_presence=True)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
        try:
            publish_directory(directory, path)
        except OSError:
            # Another process may have published the same model in the meantime.
            if not path.exists():
                raise
    return open_bundle(path)


def _passed(gates: list[Gate], differs: str) -> list[bundle_pb2.GateMeasurement]:
    require(gates, differs)
    return [
        bundle_pb2.GateMeasurement(
            name=gate.name, measured=gate.measured, limit=gate.limit, meaning=gate.meaning
        )
        for gate in gates
    ]


def _labelled_table(labelled: LabelledFeatures) -> pa.Table:
    flat = pa.array(labelled.features.ravel(), pa.float32())
    return pa.table(
        {
            "id": pa.array(labelled.ids, pa.string()),
            "digest": pa.array(labelled.digests, pa.binary(DIGEST_BYTES)),
            "feature": pa.FixedSizeListArray.from_arrays(flat, labelled.features.shape[1]),
        }
    )


def _content_sha256(table: pa.Table) -> str:
    """Return a digest of a table's contents. A Parquet file also holds the version of its writer."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _outputs(meanings: Mapping[str, str], shapes: Shapes) -> list[bundle_pb2.ModelOutput]:
    return [
        bundle_pb2.ModelOutput(name=name, meaning=meanings[name], shape=shape)
        for name, shape in shapes.items()
    ]


def _file(path: Path) -> bundle_pb2.BundleFile:
    return bundle_pb2.BundleFile(name=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)
