"""Open, verify and describe a bundle: the directory in which the trainer hands a model to the scorer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from google.protobuf import json_format
from numpy.typing import NDArray

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.errors import BundleError, NotFoundError

SCHEMA_VERSION = 1
GRAPH = "scorer.onnx"
LABELLED = "labelled.parquet"
MANIFEST = "manifest.json"
MODEL_ID_LENGTH = 16


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those that its manifest names, byte for byte."""

    path: Path
    manifest: bundle_pb2.Bundle

    @property
    def model_id(self) -> str:
        """First 16 hex digits of the sha256 of the graph."""
        return self.manifest.model_id

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    @property
    def labelled(self) -> Path:
        """Parquet of the labelled set: id (string), feature (float32 × D)."""
        return self.path / LABELLED

    @property
    def input(self) -> ImageInput:
        """What the graph takes for one image."""
        return ImageInput.from_message(self.manifest.input)

    @property
    def strategies(self) -> frozenset[str]:
        """Names of the query strategies that the graph's outputs allow."""
        return frozenset(self.manifest.strategies)

    def labelled_features(self) -> NDArray[np.float32]:
        """Float32 (L, D), of the images that the model was trained on."""
        column = pq.ParquetFile(self.labelled).read(["feature"]).column("feature").combine_chunks()
        flat: NDArray[np.float32] = column.flatten().to_numpy().astype(np.float32, copy=False)
        return flat.reshape(len(column), *self.output_shape("features"))

    def output_shape(self, name: str) -> tuple[int, ...]:
        """The sizes of an output after the batch dimension.

        Raises:
            BundleError: the bundle has no such output.
        """
        for output in self.manifest.outputs:
            if output.name == name:
                return tuple(output.shape)
        has = ", ".join(output.name for output in self.manifest.outputs)
        raise BundleError(
            f"bundle {self.model_id} has no output {name!r}; it has {has}", reason="BUNDLE_OUTPUT_MISSING"
        )


def open_bundle(path: Path) -> Bundle:
    """Reads the manifest of the bundle at `path` and holds every file to its size and sha256.

    Raises:
        NotFoundError: there is no directory at `path`, or it holds no manifest.
        BundleError: the manifest cannot be read, is of another version, or a file is missing or differs.
    """
    manifest = _read_manifest(path)
    if manifest.schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: bundle schema version {manifest.schema_version}; this scorer reads {SCHEMA_VERSION}",
            reason="BUNDLE_SCHEMA_VERSION",
        )
    declared = {file.name: file for file in manifest.files}
    for name in (GRAPH, LABELLED):
        if name not in declared:
            raise BundleError(f"{path}: the manifest names no {name}", reason="BUNDLE_INCOMPLETE")
    for file in manifest.files:
        _verify(path, file)
    if declared[GRAPH].sha256[:MODEL_ID_LENGTH] != manifest.model_id:
        raise BundleError(
            f"{path}: model id {manifest.model_id} is not that of {GRAPH}, "
            f"{declared[GRAPH].sha256[:MODEL_ID_LENGTH]}",
            reason="BUNDLE_MODEL_ID",
        )
    target = ImageInput.from_message(manifest.input)
    if target.resize is ResizeRule.UNSPECIFIED or min(target.height, target.width) < 1:
        raise BundleError(
            f"{path}: the manifest's input is not usable: {manifest.input}", reason="BUNDLE_INPUT"
        )
    return Bundle(path, manifest)


def sha256_of(path: Path) -> str:
    """Lower-case hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> bundle_pb2.Bundle:
    try:
        content = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{path} is no bundle: it holds no {MANIFEST}; `topb train --out` writes bundles",
            reason="BUNDLE_NOT_FOUND",
        ) from error
    try:
        # Fields that a newer release added are passed over; whether the rest can be read, the version tells.
        return json_format.Parse(content.decode(), bundle_pb2.Bundle(), ignore_unknown_fields=True)
    except (UnicodeDecodeError, json_format.ParseError) as error:
        raise BundleError(f"{path / MANIFEST} cannot be read: {error}", reason="BUNDLE_MANIFEST") from error


def _verify(path: Path, file: bundle_pb2.BundleFile) -> None:
    stands = path / file.name
    if Path(file.name).name != file.name:
        raise BundleError(
            f"{path}: the manifest names {file.name!r}, outside the bundle", reason="BUNDLE_MANIFEST"
        )
    if not stands.is_file():
        raise BundleError(f"{path}: {file.name} is missing", reason="BUNDLE_INCOMPLETE")
    size = stands.stat().st_size
    if size != file.size_bytes:
        raise BundleError(
            f"{stands} has {size} bytes, not {file.size_bytes} as its manifest says: torn or altered",
            reason="BUNDLE_ALTERED",
        )
    digest = sha256_of(stands)
    if digest != file.sha256:
        raise BundleError(
            f"{stands} has sha256 {digest}; the manifest says {file.sha256}: the copy was altered",
            reason="BUNDLE_ALTERED",
        )
