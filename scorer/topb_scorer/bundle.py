"""Open and verify bundles, the directories in which the trainer hands models to the scorer.

A bundle has an encoder, which turns images into features, and a head, which turns features into scores and
probabilities. It may lack the encoder (its pools are vectors), or the head (it has only features).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format
from numpy.typing import NDArray

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.errors import BundleError, NotFoundError, is_storage_fault

SCHEMA_VERSION = 2
ENCODER = "encoder.onnx"
HEAD = "head.onnx"
LABELLED = "labelled.parquet"
MANIFEST = "manifest.json"
IMPORTED_METHOD = "imported"
"""The method of a bundle that was imported, not trained."""
_ID_LENGTH = 16
_IDENTITY = (
    "method",
    "round",
    "input",
    "classes",
    "outputs",
    "strategies",
    "test_accuracy",
    "seed",
    "configuration",
    "feature_type",
    "encoder_outputs",
    "labelled_sha256",
)
"""The fields of a manifest that the model id covers, in addition to the graphs."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its files have the sizes and digests that its manifest states."""

    path: Path
    manifest: bundle_pb2.Bundle

    @property
    def model_id(self) -> str:
        """The id that `model_id_of` computes. Models that a user would tell apart have different ids."""
        return self.manifest.model_id

    @property
    def encoder_id(self) -> str:
        """The id that `encoder_id_of` computes; empty if there is no encoder."""
        return self.manifest.encoder_id

    @property
    def encoder(self) -> Path | None:
        """The path of the encoder, an ONNX graph from images to features; None if the pools are vectors."""
        return self.path / ENCODER if self.encoder_id else None

    @property
    def head(self) -> Path | None:
        """The path of the head, an ONNX graph of the encoder's outputs; None if there are only features."""
        return self.path / HEAD if self.head_outputs else None

    @property
    def graph_bytes(self) -> int:
        """The size of both graphs together, in bytes."""
        return sum(file.size_bytes for file in self.manifest.files if file.name in (ENCODER, HEAD))

    @property
    def labelled(self) -> Path:
        """The path of the labelled set, a Parquet file with columns id (string), digest (binary of 16 bytes)
        and feature (float32, D). Bundles of earlier releases have no digests."""
        return self.path / LABELLED

    @property
    def input(self) -> ImageInput:
        """The array that the encoder takes for one image. Its height is 0 if there is no encoder."""
        return ImageInput.from_message(self.manifest.input)

    @property
    def strategies(self) -> frozenset[str]:
        """The names of the query strategies that the manifest declares."""
        return frozenset(self.manifest.strategies)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all outputs for one image, by name: `features` and those of the head."""
        return {output.name: tuple(output.shape) for output in self.manifest.outputs}

    @property
    def encoder_outputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the encoder's outputs for one image, by name: at least `features`, (D,)."""
        return {output.name: tuple(output.shape) for output in self.manifest.encoder_outputs}

    @property
    def head_outputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the head's outputs for one image, by name."""
        return {name: shape for name, shape in self.output_shapes.items() if name not in self.encoder_outputs}

    @property
    def class_count(self) -> int:
        """C, the number of classes; 0 if the model has no classifier."""
        (count,) = self.output_shapes.get("probabilities", (0,))
        return count

    def labelled_digests(self) -> dict[str, bytes]:
        """Read which images the model was trained on: the content digest of each by its id, empty if unknown.

        Raises:
            BundleError: the file is not Parquet, or it has no ids.
            OSError: the disk failed.
        """
        with self._reading_labelled():
            file = pq.ParquetFile(self.labelled)
            columns = ["id", *(["digest"] if "digest" in file.schema_arrow.names else [])]
            table = file.read(columns)
            ids = table.column("id").cast(pa.string()).to_pylist()
            digests = table.column("digest").to_pylist() if len(columns) > 1 else [None] * len(ids)
        return {id_: digest or b"" for id_, digest in zip(ids, digests, strict=True)}

    def labelled_features(self) -> NDArray[np.float32]:
        """Read the features of the L images that the model was trained on: float32 (L, D).

        Raises:
            BundleError: the file is not Parquet, or it does not hold D numbers for each image.
            OSError: the disk failed.
        """
        (width,) = self.output_shape("features")
        with self._reading_labelled():
            column = pq.ParquetFile(self.labelled).read(["feature"]).column("feature")
            rows = column.cast(pa.list_(pa.float32(), width)).combine_chunks()
        flat = rows.flatten()
        if flat.null_count or len(flat) != len(rows) * width:
            raise self._unreadable_labelled("a feature is null")
        features: NDArray[np.float32] = flat.to_numpy()
        return features.reshape(len(rows), width)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an output without the batch dimension.

        Raises:
            BundleError: the model has no such output.
        """
        shapes = self.output_shapes
        if name in shapes:
            return shapes[name]
        has = ", ".join(shapes)
        raise BundleError(
            f"bundle {self.model_id} has no output {name!r}; its outputs are {has}: export the model again",
            reason="BUNDLE_OUTPUT_MISSING",
        )

    @contextmanager
    def _reading_labelled(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
            if isinstance(error, FileNotFoundError):
                raise self._unreadable_labelled("the file is missing") from error
            if is_storage_fault(error):
                raise
            raise self._unreadable_labelled(error) from error

    def _unreadable_labelled(self, fault: object) -> BundleError:
        return BundleError(
            f"{LABELLED} of model {self.model_id} cannot be read: {fault}; export the model again",
            reason="BUNDLE_LABELLED",
            model=self.model_id,
        )


def open_bundle(path: Path) -> Bundle:
    """Read the manifest of the bundle in the directory `path` and verify the size and sha256 of every file.

    Raises:
        NotFoundError: there is no directory at `path`, or it has no manifest.
        BundleError: the manifest is invalid or has another schema version, or a file is missing or altered.
    """
    manifest = _read_manifest(path)
    if manifest.schema_version != SCHEMA_VERSION:
        remedy = (
            "make a new bundle: repeat `topb train` with this version of topb"
            if manifest.schema_version < SCHEMA_VERSION
            else "install the version of topb that wrote it"
        )
        raise BundleError(
            f"{path} has bundle schema version {manifest.schema_version}; this version of topb reads version "
            f"{SCHEMA_VERSION}: {remedy}",
            reason="BUNDLE_SCHEMA_VERSION",
        )
    bundle = Bundle(path, manifest)
    declared = {file.name for file in manifest.files}
    graphs = [graph.name for graph in (bundle.encoder, bundle.head) if graph is not None]
    for name in (*graphs, LABELLED):
        if name not in declared:
            raise BundleError(
                f"{path}: the manifest does not list {name}; export the model again",
                reason="BUNDLE_INCOMPLETE",
            )
    for file in manifest.files:
        _verify(path, file)
    target = bundle.input
    if bundle.encoder and (target.resize is ResizeRule.UNSPECIFIED or min(target.height, target.width) < 1):
        raise BundleError(
            f"{path}: the manifest's input must have a height and a width of at least 1 and a known resize "
            f"rule: {manifest.input}",
            reason="BUNDLE_INPUT",
        )
    for what, stated, computed in (
        ("encoder id", manifest.encoder_id, encoder_id_of(manifest)),
        ("model id", manifest.model_id, model_id_of(manifest)),
    ):
        if stated != computed:
            raise BundleError(
                f"{path}: the manifest has {what} {stated!r}, but that of its contents is {computed!r}; "
                "copy or export the bundle again",
                reason="BUNDLE_MODEL_ID",
            )
    if len(bundle.encoder_outputs.get("features", ())) != 1 or "features" not in bundle.output_shapes:
        raise BundleError(
            f"{path}: the manifest must list the output 'features', of shape (D), among outputs and "
            "encoder_outputs; export the model again",
            reason="BUNDLE_OUTPUT_MISSING",
        )
    return bundle


def encoder_id_of(manifest: bundle_pb2.Bundle) -> str:
    """Return the id of the encoder in `files`, a digest of its graph and `input`; empty if there is none."""
    graphs = _graphs(manifest)
    if ENCODER not in graphs:
        return ""
    return _id_of([graphs[ENCODER], json_format.MessageToDict(manifest.input)])


def model_id_of(manifest: bundle_pb2.Bundle) -> str:
    """Return the id of the model that a manifest describes.

    It is a digest of the graphs in `files`, the classes, the labelled set, the accuracy, the configuration
    and the other fields by which a user would tell models apart. It does not cover times or library
    versions.
    """
    fields = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    return _id_of([_graphs(manifest), {name: fields[name] for name in _IDENTITY if name in fields}])


def _graphs(manifest: bundle_pb2.Bundle) -> dict[str, str]:
    return {file.name: file.sha256 for file in manifest.files if file.name in (ENCODER, HEAD)}


def _id_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_ID_LENGTH]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file of any size, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> bundle_pb2.Bundle:
    try:
        content = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}"))
        advice = (
            f"give a bundle in it, such as {inside[0]}"
            if inside
            else "`topb train` and `topb import` write bundles"
        )
        raise NotFoundError(
            f"{path} is not a bundle: it has no {MANIFEST}; {advice}",
            reason="BUNDLE_NOT_FOUND",
        ) from error
    try:
        # A later release may add fields within this schema version.
        return json_format.Parse(content.decode(), bundle_pb2.Bundle(), ignore_unknown_fields=True)
    except (UnicodeDecodeError, json_format.ParseError) as error:
        raise BundleError(
            f"{path / MANIFEST} cannot be read: {error}; copy or export the bundle again",
            reason="BUNDLE_MANIFEST",
        ) from error


def _verify(path: Path, file: bundle_pb2.BundleFile) -> None:
    file_path = path / file.name
    if Path(file.name).name != file.name:
        raise BundleError(
            f"{path}: the manifest lists {file.name!r}; expected the name of a file in the bundle",
            reason="BUNDLE_MANIFEST",
        )
    if not file_path.is_file():
        raise BundleError(
            f"{path}: {file.name} is missing; copy the whole bundle again", reason="BUNDLE_INCOMPLETE"
        )
    size = file_path.stat().st_size
    if size != file.size_bytes:
        raise BundleError(
            f"{file_path} is incomplete or altered: it has {size} bytes, expected {file.size_bytes}; "
            "copy or export the bundle again",
            reason="BUNDLE_ALTERED",
        )
    digest = sha256_of(file_path)
    if digest != file.sha256:
        raise BundleError(
            f"{file_path} was altered: it has sha256 {digest}, expected {file.sha256}; "
            "copy or export the bundle again",
            reason="BUNDLE_ALTERED",
        )
