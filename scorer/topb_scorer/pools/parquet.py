"""Parquet files of encoded images, or of paths of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.imaging import DEFAULT_LIMITS
from topb_scorer.pools.ahead import answers_ahead
from topb_scorer.pools.files import local_stamps, read_image
from topb_scorer.pools.locations import Place, S3Path, is_remote
from topb_scorer.pools.parquet_columns import Layout, check_id_column, layout_of
from topb_scorer.pools.pool import Columns, Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.roots import AllowedRoots
from topb_scorer.pools.storage import LOCAL_BUFFER_BYTES, READ_ERRORS, S3_BUFFER_BYTES, Storage

_READ_ROWS = 64
# A file of a few row groups is taken as its writer cut it. Of more, which may be of a row each, runs are
# made: a shard costs a file in the score log.
_FEW_ROW_GROUPS = 256
_RUN_ROWS = 512
# Text that is not UTF-8 shows as UnicodeDecodeError, and only once it is looked at.
_READ_ERRORS = (*READ_ERRORS, UnicodeDecodeError)


@dataclass(frozen=True)
class ParquetShard:
    """A run of row groups of one file."""

    file: Place
    row_groups: range
    rows: int
    identity: str
    columns: Columns
    layout: Layout
    storage: Storage

    def items(self) -> Iterator[PoolItem]:
        """Each row's image, from its bytes or from the file at its path."""
        if self.layout is Layout.BYTES:
            return map(self._item, self._cells())
        return answers_ahead(self._item, self._cells(), waits=self._is_elsewhere)

    def _cells(self) -> Iterator[tuple[str | None, Any, str]]:
        """Id, image or path, and place of each row."""
        names = [self.columns.id, self.columns.path if self.layout is Layout.PATHS else self.columns.image]
        row_group = self.row_groups.start
        try:
            with open_parquet_file(self.file, self.storage) as file:
                for row_group in self.row_groups:
                    row = 0
                    for batch in file.iter_batches(
                        _READ_ROWS, row_groups=[row_group], columns=names, use_threads=False
                    ):
                        ids = _as_strings(batch.column(0))
                        for id_, cell in zip(ids, batch.column(1), strict=True):
                            yield id_, cell.as_py(), f"{self.file.name}:{row_group}:{row}"
                            row += 1
        except _READ_ERRORS as error:
            raise UnreadablePoolError(
                f"{self.file}: row group {row_group} cannot be read: {error}",
                reason="POOL_UNREADABLE",
                file=self.file,
            ) from error

    def _item(self, row: tuple[str | None, Any, str]) -> PoolItem:
        id_, cell, where = row
        # An empty id is none: over the wire the two are one.
        if not id_:
            return PoolItem(where, Unreadable("ID_MISSING", f"column {self.columns.id} has no id at {where}"))
        return PoolItem(id_, self._image(cell))

    def _is_elsewhere(self, row: tuple[str | None, Any, str]) -> bool:
        cell = row[1]
        if self.layout is Layout.BYTES_OR_PATHS:
            cell = cell.get("path") if cell and cell.get("bytes") is None else None
        return bool(cell) and is_remote(cell, self.file.parent)

    def _image(self, cell: Any) -> bytes | Unreadable:
        if self.layout is Layout.PATHS:
            if not cell:
                return Unreadable("IMAGE_MISSING", f"column {self.columns.path} is null or empty")
            return read_image(cell, self.file.parent, self.storage)
        image: bytes | None = cell.get("bytes") if isinstance(cell, dict) else cell
        if image is not None:
            return image
        path = cell.get("path") if isinstance(cell, dict) else None
        if path and self.layout is Layout.BYTES_OR_PATHS:
            return read_image(path, self.file.parent, self.storage)
        return Unreadable("IMAGE_MISSING", f"column {self.columns.image} is null")


def open_parquet(files: Sequence[Place], columns: Columns, storage: Storage) -> Pool:
    """The row groups of `files`.

    Raises:
        InvalidRequestError: a file lacks the columns, or they hold something else.
        UnreadablePoolError: a file is not Parquet, or is torn.
    """

    def shards_of(file: Place) -> list[ParquetShard]:
        return _shards_of(file, columns, storage)

    opened = answers_ahead(shards_of, files, waits=lambda file: isinstance(file, S3Path))
    return Pool([shard for shards in opened for shard in shards])


@contextmanager
def open_parquet_file(location: Place, storage: Storage) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file here or on S3."""
    buffer_size = LOCAL_BUFFER_BYTES if isinstance(location, Path) else S3_BUFFER_BYTES
    with storage.open(location) as source:
        # Buffered and not prefetched: a row group of any size is read through a small window.
        yield pq.ParquetFile(
            source, buffer_size=buffer_size, pre_buffer=False, page_checksum_verification=True
        )


def _shards_of(path: Place, columns: Columns, storage: Storage) -> list[ParquetShard]:
    try:
        stamp = storage.stamp_of(path)
        with open_parquet_file(path, storage) as file:
            layout = layout_of(path, file.schema_arrow, columns)
            group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            runs = _runs(group_rows)
            stamps = [
                local_stamps(_paths(file, run, columns.path), path.parent) if layout is Layout.PATHS else ""
                for run in runs
            ]
    except _READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{path} cannot be read as Parquet: {error}", reason="POOL_UNREADABLE", file=path
        ) from error
    column_names = [columns.id, columns.path if layout is Layout.PATHS else columns.image]
    return [
        ParquetShard(
            file=path,
            row_groups=run,
            rows=sum(group_rows[i] for i in run),
            identity=identity_of("parquet", str(path), stamp, column_names, run.start, run.stop, files_stamp),
            columns=columns,
            layout=layout,
            storage=storage,
        )
        for run, files_stamp in zip(runs, stamps, strict=True)
    ]


def _runs(group_rows: Sequence[int]) -> list[range]:
    """A row group each; of many row groups, runs that end before they exceed 512 rows."""
    if len(group_rows) <= _FEW_ROW_GROUPS:
        return [range(i, i + 1) for i in range(len(group_rows))]
    runs: list[range] = []
    start = rows = 0
    for i, count in enumerate(group_rows):
        if i > start and rows + count > _RUN_ROWS:
            runs.append(range(start, i))
            start, rows = i, 0
        rows += count
    runs.append(range(start, len(group_rows)))
    return runs


def _paths(file: pq.ParquetFile, row_groups: range, column: str) -> Iterator[str | None]:
    for batch in file.iter_batches(row_groups=list(row_groups), columns=[column], use_threads=False):
        yield from batch.column(0).to_pylist()


def read_ids(location: Place, column: str) -> list[str]:
    """The ids in one column of a Parquet file, without nulls; that it may be read, the caller has made sure.

    Raises:
        InvalidRequestError: there is no such column, or it holds neither strings nor integers.
        UnreadablePoolError: the file is not Parquet, or is torn.
    """
    storage = Storage(AllowedRoots.anywhere(), DEFAULT_LIMITS)
    try:
        with open_parquet_file(location, storage) as file:
            check_id_column(location, file.schema_arrow, column)
            table = file.read([column], use_threads=False)
            return [id_ for chunk in table.column(0).chunks for id_ in _as_strings(chunk) if id_ is not None]
    except _READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{location} cannot be read as Parquet: {error}", reason="EXCLUSION_UNREADABLE", file=location
        ) from error


def _as_strings(ids: pa.Array) -> list[str | None]:
    strings: list[str | None] = ids.cast(pa.string()).to_pylist()
    return strings
