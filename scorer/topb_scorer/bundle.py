"""Open and verify bundles, the directories in which the trainer hands models to the scorer."""

from __future__ import annotations

import hashlib
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

SCHEMA_VERSION = 1
GRAPH = "scorer.onnx"
LABELLED = "labelled.parquet"
MANIFEST = "manifest.json"
MODEL_ID_LENGTH = 16


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its files have the sizes and digests that its manifest states."""

    path: Path
    manifest: bundle_pb2.Bundle

    @property
    def model_id(self) -> str:
        """The first 16 hex digits of the graph's sha256."""
        return self.manifest.model_id

    @property
    def graph(self) -> Path:
        """The path of the ONNX graph."""
        return self.path / GRAPH

    @property
    def labelled(self) -> Path:
        """The path of the labelled set, a Parquet file with columns id (string), digest (binary of 16 bytes)
        and feature (float32, D). Bundles of earlier releases have no digests."""
        return self.path / LABELLED

    @property
    def input(self) -> ImageInput:
        """The array that the graph takes for one image."""
        return ImageInput.from_message(self.manifest.input)

    @property
    def strategies(self) -> frozenset[str]:
        """The names of the query strategies that the manifest declares."""
        return frozenset(self.manifest.strategies)

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
            BundleError: the graph has no such output.
        """
        for output in self.manifest.outputs:
            if output.name == name:
                return tuple(output.shape)
        has = ", ".join(output.name for output in self.manifest.outputs)
        raise BundleError(
            f"bundle {self.model_id} has no output {name!r}; its outputs are {has}: export the model again",
            reason="BUNDLE_OUTPUT_MISSING",
        )

    @contextmanager
    def _reading_labelled(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
            if is_storage_fault(error) and not isinstance(error, FileNotFoundError):
                raise
            raise self._unreadable_labelled(error) from error

    def _unreadable_labelled(self, fault: object) -> BundleError:
        return BundleError(
            f"{self.labelled} cannot be read: {fault}; export the model again",
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
        raise BundleError(
            f"{path} has bundle schema version {manifest.schema_version}; this scorer reads version "
            f"{SCHEMA_VERSION}: export the model with the scorer's version of topb",
            reason="BUNDLE_SCHEMA_VERSION",
        )
    declared = {file.name: file for file in manifest.files}
    for name in (GRAPH, LABELLED):
        if name not in declared:
            raise BundleError(
                f"{path}: the manifest does not list {name}; export the model again",
                reason="BUNDLE_INCOMPLETE",
            )
    for file in manifest.files:
        _verify(path, file)
    if declared[GRAPH].sha256[:MODEL_ID_LENGTH] != manifest.model_id:
        raise BundleError(
            f"{path}: the manifest has model id {manifest.model_id}, "
            f"but the sha256 of {GRAPH} begins with {declared[GRAPH].sha256[:MODEL_ID_LENGTH]}; "
            "copy or export the bundle again",
            reason="BUNDLE_MODEL_ID",
        )
    target = ImageInput.from_message(manifest.input)
    if target.resize is ResizeRule.UNSPECIFIED or min(target.height, target.width) < 1:
        raise BundleError(
            f"{path}: the manifest's input must have a height and a width of at least 1 and a known resize "
            f"rule: {manifest.input}",
            reason="BUNDLE_INPUT",
        )
    return Bundle(path, manifest)


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
            f"give a bundle in it, such as {inside[0]}" if inside else "`topb train --out` writes bundles"
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
