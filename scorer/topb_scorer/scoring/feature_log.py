"""Keep what an encoder gave for the images of a shard, so that later models with it need no images."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.errors import BundleError
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.encoded_rows import EncodedRows, Float32Array
from topb_scorer.scoring.shard_log import (
    ROW_COLUMNS,
    ShardLog,
    binary_array,
    binary_rows,
    row_arrays,
    row_fields,
)

ROWS_A_BATCH = 1024
"""Rows that are read at once, a multiple of the head's batch: 5 MB for 1,280 features as float32."""
_ID_AND_DIGEST_BYTES = 80
_TYPE, _SHAPE = b"type", b"shape"


class FeatureLog(ShardLog):
    """The outputs of an encoder, with one file for each shard.

    Each output is a column of fixed-size binary, the little-endian numbers of a row. The metadata of the
    column have their type, `float16` or `float32`, and the shape of a row.
    """

    kind = "feature log"
    version = 1

    def keep(self, encoded: Iterator[EncodedRows], bundle: Bundle) -> Generator[EncodedRows, None, None]:
        """Yield the rows unchanged. Each shard has been committed when its last rows are yielded.

        Args:
            encoded: rows of shards, with the outputs of the bundle's encoder.
            bundle: tells the shapes of the outputs, and whether features are float16.

        Raises:
            BundleError: with reason BUNDLE_FEATURE_TYPE, if features are not what the manifest says.
            OSError: the directory cannot be written to.
        """
        schema = _schema(bundle)
        names = [*ROW_COLUMNS]  # Numbers have no use for dictionaries and statistics.
        for part in encoded:
            with (
                self._committing(part.shard.identity, "shard encoded") as path,
                pq.ParquetWriter(
                    path, schema, compression="zstd", use_dictionary=names, write_statistics=names
                ) as file,
            ):
                groups = _RowGroups(file, bundle)
                groups.add(part)
                while not part.ends_shard:
                    yield part
                    part = next(encoded)
                    groups.add(part)
                groups.end()
            yield part

    def read(self, shard: Shard) -> Iterator[EncodedRows]:
        """Yield the rows of a committed shard in batches, the last of which ends the shard.

        Raises:
            AlteredShardError: the shard is missing, incomplete or altered. Then nothing was yielded.
        """
        with self._reading(shard.identity) as file:
            left = file.metadata.num_rows
            for table in _batches(file, file.schema_arrow.names):
                left -= table.num_rows
                yield EncodedRows(shard, outputs=_outputs(table), ends_shard=not left, **row_fields(table))

    def read_outputs(self, identity: str) -> Iterator[dict[str, Float32Array]]:
        """Yield the outputs of a committed shard by name, float32 (n, …), in the same batches as `read`.

        Raises:
            AlteredShardError: the shard is missing, incomplete or altered. Then nothing was yielded.
        """
        with self._reading(identity) as file:
            names = [name for name in file.schema_arrow.names if name not in ROW_COLUMNS]
            yield from map(_outputs, _batches(file, names))


class _RowGroups:
    """Collects the rows of a shard, and writes each `ROWS_A_BATCH` of them as a row group."""

    def __init__(self, file: pq.ParquetWriter, bundle: Bundle) -> None:
        self._file = file
        self._bundle = bundle
        self._rows = file.schema.empty_table()

    def add(self, part: EncodedRows) -> None:
        """Take a copy of the next rows."""
        columns = row_arrays(part.ids, part.digests, part.skips)
        columns |= {name: binary_array(self._kept(name, part)) for name in self._bundle.encoder_outputs}
        self._rows = pa.concat_tables([self._rows, pa.table(columns, self._rows.schema)])
        while self._rows.num_rows >= ROWS_A_BATCH:
            self._write(self._rows.slice(0, ROWS_A_BATCH))
            self._rows = self._rows.slice(ROWS_A_BATCH)

    def end(self) -> None:
        """Write the rest."""
        if self._rows.num_rows:
            self._write(self._rows)

    def _write(self, rows: pa.Table) -> None:
        self._file.write_table(rows, row_group_size=ROWS_A_BATCH)

    def _kept(self, name: str, part: EncodedRows) -> NDArray[np.floating]:
        given = part.outputs[name]
        with np.errstate(over="ignore"):
            kept = given.astype(kept_type(self._bundle, name))
        kept[list(part.skips)] = 0  # Their outputs have no meaning.
        same = (kept == given) | np.isnan(given)
        same[list(part.skips)] = True
        if not same.all():
            raise BundleError(
                f"bundle {self._bundle.model_id}: according to its manifest, the encoder rounds "
                f"{name} to float16, but it does not; export the model again",
                reason="BUNDLE_FEATURE_TYPE",
                model=self._bundle.model_id,
            )
        return kept


def kept_type(bundle: Bundle, output: str) -> type[np.floating]:
    """Return the type in which an output of the encoder is kept without loss."""
    is_half = bundle.manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT16
    return np.float16 if is_half and output == "features" else np.float32


def expected_bytes(bundle: Bundle, rows: int) -> int:
    """Return about how many bytes this many rows take in a feature log. Compression may save some."""
    numbers = (
        np.dtype(kept_type(bundle, name)).itemsize * math.prod(shape)
        for name, shape in bundle.encoder_outputs.items()
    )
    return rows * (_ID_AND_DIGEST_BYTES + sum(numbers))


def _schema(bundle: Bundle) -> pa.Schema:
    outputs = []
    for name, shape in bundle.encoder_outputs.items():
        dtype = np.dtype(kept_type(bundle, name))
        metadata = {_TYPE: dtype.name, _SHAPE: json.dumps(shape)}
        width = dtype.itemsize * math.prod(shape)
        # A pool of vectors in which all are missing has no width.
        outputs.append(pa.field(name, pa.binary(width) if width else pa.null(), metadata=metadata))
    return pa.schema([*(pa.field(*column) for column in ROW_COLUMNS.items()), *outputs])


def _batches(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.Table]:
    if not file.num_row_groups:
        yield file.schema_arrow.empty_table().select(columns)
    for group in range(file.num_row_groups):
        # One thread keeps the order of the rows.
        yield file.read_row_group(group, columns, use_threads=False)


def _outputs(table: pa.Table) -> dict[str, Float32Array]:
    outputs = {}
    for field in table.schema:
        if field.name not in ROW_COLUMNS:
            dtype, shape = field.metadata[_TYPE].decode(), json.loads(field.metadata[_SHAPE])
            numbers = binary_rows(table, field.name).view(dtype).astype(np.float32, copy=False)
            outputs[field.name] = numbers.reshape(table.num_rows, *shape)
    return outputs
