"""Pools that are Parquet files, of encoded images or of their paths and URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.parquet_file import (
    PARQUET_READ_ERRORS,
    ImageLayout,
    ids_as_strings,
    image_layout,
    open_parquet_file,
)
from topb_scorer.pools.pool import Columns, OpenPool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.storage import Location, Stores

_READ_ROWS = 64
_FEW_ROW_GROUPS = 256
_RUN_ROWS = 512


@dataclass(frozen=True)
class ParquetShard:
    """Consecutive row groups of one file."""

    file: Location
    row_groups: range
    rows: int
    identity: str
    columns: Columns
    layout: ImageLayout
    stores: Stores

    def items(self) -> Iterator[PoolItem]:
        """Yield each row's image, from its bytes or read from its path or URL."""
        if self.layout is ImageLayout.BYTES:
            return map(self._item, self._cells())
        return map_ahead(self._item, self._cells(), is_remote=self._is_remote)

    def _cells(self) -> Iterator[tuple[str | None, Any, str]]:
        """Yield each row's id, its image or path, and file:row group:row."""
        images = self.columns.path if self.layout is ImageLayout.PATHS else self.columns.image
        row_group = self.row_groups.start
        try:
            with open_parquet_file(self.file) as file:
                for row_group in self.row_groups:
                    row = 0
                    for batch in file.iter_batches(
                        _READ_ROWS,
                        row_groups=[row_group],
                        columns=[self.columns.id, images],
                        use_threads=False,
                    ):
                        ids = ids_as_strings(batch.column(0))
                        for id_, cell in zip(ids, batch.column(1), strict=True):
                            yield id_, cell.as_py(), f"{self.file.name}:{row_group}:{row}"
                            row += 1
        except PARQUET_READ_ERRORS as error:
            raise UnreadablePoolError(
                f"{self.file}: row group {row_group} cannot be read: {error}",
                reason="POOL_UNREADABLE",
                file=self.file,
            ) from error

    def _item(self, row: tuple[str | None, Any, str]) -> PoolItem:
        id_, cell, where = row
        # The wire protocol cannot tell an empty id from a missing one.
        if not id_:
            return PoolItem(where, Unreadable("ID_MISSING", f"column {self.columns.id} is empty at {where}"))
        return PoolItem(id_, self._image(cell))

    def _is_remote(self, row: tuple[str | None, Any, str]) -> bool:
        cell = row[1]
        if self.layout is ImageLayout.BYTES_OR_PATHS:
            cell = cell.get("path") if cell and cell.get("bytes") is None else None
        return bool(cell) and self.stores.is_remote(cell, self.file.parent)

    def _image(self, cell: Any) -> bytes | Unreadable:
        if self.layout is ImageLayout.PATHS:
            if not cell:
                return Unreadable("IMAGE_MISSING", f"column {self.columns.path} is null or empty")
            return self.stores.read_image(cell, self.file.parent)
        image: bytes | None = cell.get("bytes") if isinstance(cell, dict) else cell
        if image is not None:
            return image
        path = cell.get("path") if isinstance(cell, dict) else None
        if path and self.layout is ImageLayout.BYTES_OR_PATHS:
            return self.stores.read_image(path, self.file.parent)
        return Unreadable("IMAGE_MISSING", f"column {self.columns.image} is null")


def open_parquet(files: Sequence[Location], columns: Columns, stores: Stores) -> OpenPool:
    """Return the pool of the rows of `files`.

    Raises:
        InvalidRequestError: A column is missing from a file, there twice, or of another type.
        UnreadablePoolError: A file is not Parquet or is damaged.
    """

    def shards_of(file: Location) -> list[ParquetShard]:
        return _shards_of(file, columns, stores)

    opened = map_ahead(shards_of, files, is_remote=lambda file: file.is_remote)
    return OpenPool([shard for shards in opened for shard in shards])


def _shards_of(location: Location, columns: Columns, stores: Stores) -> list[ParquetShard]:
    try:
        stamp = location.stamp()
        with open_parquet_file(location) as file:
            layout = image_layout(location, file.schema_arrow, columns)
            group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            runs = row_group_runs(group_rows)
            stamps = [
                stores.digest_of_local_images(_paths(file, run, columns.path), location.parent)
                if layout is ImageLayout.PATHS
                else ""
                for run in runs
            ]
    except PARQUET_READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{location} cannot be read as Parquet: {error}", reason="POOL_UNREADABLE", file=location
        ) from error
    names = [columns.id, columns.path if layout is ImageLayout.PATHS else columns.image]
    return [
        ParquetShard(
            file=location,
            row_groups=run,
            rows=sum(group_rows[i] for i in run),
            identity=identity_of("parquet", str(location), stamp, names, run.start, run.stop, files_stamp),
            columns=columns,
            layout=layout,
            stores=stores,
        )
        for run, files_stamp in zip(runs, stamps, strict=True)
    ]


def row_group_runs(group_rows: Sequence[int], *, few: int = _FEW_ROW_GROUPS) -> list[range]:
    """Return the row groups of each shard.

    In a file of up to `few` row groups, each is a shard. In a file of more, which may have a row each,
    consecutive ones form a shard as long as they have 512 rows or fewer together, because each shard costs a
    file in the score log.

    Args:
        group_rows: The number of rows of each row group.
        few: The largest number of row groups that are not joined.
    """
    if len(group_rows) <= few:
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
