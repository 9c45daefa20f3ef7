"""Parquet files of encoded images or of image paths; a shard is a row group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools.files import read_image_file
from topb_scorer.pools.pool import Columns, Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.roots import AllowedRoots

_READ_ROWS = 64
_READ_BUFFER_BYTES = 1 << 20
# Text that is not UTF-8 shows as UnicodeDecodeError, and only once it is looked at.
_READ_ERRORS = (OSError, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class ParquetShard:
    """One row group of one file."""

    file: Path
    row_group: int
    rows: int
    identity: str
    columns: Columns
    has_images: bool
    roots: AllowedRoots
    limits: ImageLimits

    def items(self) -> Iterator[PoolItem]:
        """Each row's image, from its bytes or from the file at its path."""
        names = [self.columns.id, self.columns.image if self.has_images else self.columns.path]
        try:
            with _open_file(self.file) as file:
                batches = file.iter_batches(
                    _READ_ROWS, row_groups=[self.row_group], columns=names, use_threads=False
                )
                row = 0
                for batch in batches:
                    ids = _as_strings(batch.column(0))
                    for id_, cell in zip(ids, batch.column(1), strict=True):
                        yield self._item(id_, cell.as_py(), row)
                        row += 1
        except _READ_ERRORS as error:
            raise UnreadablePoolError(
                f"{self.file}: row group {self.row_group} cannot be read: {error}",
                reason="POOL_UNREADABLE",
                file=self.file,
            ) from error

    def _item(self, id_: str | None, cell: Any, row: int) -> PoolItem:
        # An empty id is none: over the wire the two are one.
        if not id_:
            where = f"{self.file.name}:{self.row_group}:{row}"
            return PoolItem(where, Unreadable("ID_MISSING", f"column {self.columns.id} has no id at {where}"))
        if self.has_images:
            image = cell.get("bytes") if isinstance(cell, dict) else cell
            if image is None:
                return PoolItem(id_, Unreadable("IMAGE_MISSING", f"column {self.columns.image} is null"))
            return PoolItem(id_, image)
        if cell is None:
            return PoolItem(id_, Unreadable("IMAGE_MISSING", f"column {self.columns.path} is null"))
        path = cell if "://" in cell else str(self.file.parent / cell)
        return PoolItem(id_, read_image_file(path, self.roots, self.limits))


def open_parquet(files: list[Path], columns: Columns, roots: AllowedRoots, limits: ImageLimits) -> Pool:
    """The row groups of `files`.

    Raises:
        InvalidRequestError: a file lacks the columns, or they hold something else.
        UnreadablePoolError: a file is not Parquet, or is torn.
    """
    shards: list[ParquetShard] = []
    for path in files:
        try:
            stamp = path.stat()
            with _open_file(path) as file:
                schema = file.schema_arrow
                group_rows = [
                    file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
                ]
        except (OSError, pa.ArrowException) as error:
            raise UnreadablePoolError(
                f"{path} cannot be read as Parquet: {error}", reason="POOL_UNREADABLE", file=path
            ) from error
        has_images = _check_columns(path, schema, columns)
        column_names = [columns.id, columns.image if has_images else columns.path]
        stamps = [str(path), stamp.st_size, stamp.st_mtime_ns, column_names]
        shards += [
            ParquetShard(
                path, i, rows, identity_of("parquet", *stamps, i), columns, has_images, roots, limits
            )
            for i, rows in enumerate(group_rows)
        ]
    return Pool(shards)


def read_ids(path: Path, column: str) -> list[str]:
    """The ids in one column of a Parquet file, without nulls.

    Raises:
        InvalidRequestError: there is no such column, or it holds neither strings nor integers.
        UnreadablePoolError: the file is not Parquet, or is torn.
    """
    try:
        with _open_file(path) as file:
            _check_id_type(path, file.schema_arrow, column)
            table = file.read([column], use_threads=False)
            return [id_ for chunk in table.column(0).chunks for id_ in _as_strings(chunk) if id_ is not None]
    except _READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{path} cannot be read as Parquet: {error}", reason="EXCLUSION_UNREADABLE", file=path
        ) from error


def _open_file(path: Path) -> pq.ParquetFile:
    # Buffered and not prefetched: a row group of any size is read through a small window.
    return pq.ParquetFile(
        path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


def _as_strings(ids: pa.Array) -> list[str | None]:
    strings: list[str | None] = ids.cast(pa.string()).to_pylist()
    return strings


def _check_columns(path: Path, schema: pa.Schema, columns: Columns) -> bool:
    """Whether images stand in the file (True) or at paths (False)."""
    for column in (columns.id, columns.image, columns.path):
        if schema.names.count(column) > 1:
            raise InvalidRequestError(
                f"{path} has {schema.names.count(column)} columns {column!r}; expected one",
                reason="POOL_COLUMN_AMBIGUOUS",
                file=path,
            )
    _check_id_type(path, schema, columns.id)
    if columns.image in schema.names:
        if _holds_images(schema.field(columns.image).type):
            return True
        raise _unfit(path, schema, columns.image, "binary, or a struct with a binary field `bytes`")
    if columns.path in schema.names:
        if _is_string(schema.field(columns.path).type):
            return False
        raise _unfit(path, schema, columns.path, "strings")
    raise InvalidRequestError(
        f"{path} has neither an image column {columns.image!r} nor a path column {columns.path!r}; "
        f"it has {', '.join(schema.names)}: name the right one",
        reason="POOL_COLUMN_MISSING",
        file=path,
    )


def _check_id_type(path: Path, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise InvalidRequestError(
            f"{path} has no id column {column!r}; it has {', '.join(schema.names)}: name the right one",
            reason="POOL_COLUMN_MISSING",
            file=path,
        )
    type_ = schema.field(column).type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if not (_is_string(type_) or pa.types.is_integer(type_)):
        raise _unfit(path, schema, column, "strings or integers")


def _unfit(path: Path, schema: pa.Schema, column: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path}: column {column!r} holds {schema.field(column).type}; expected {expected}",
        reason="POOL_COLUMN_TYPE",
        file=path,
    )


def _holds_images(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" and _is_binary(field.type) for field in type_)
    return _is_binary(type_)


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_)
    )


def _is_string(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    )
