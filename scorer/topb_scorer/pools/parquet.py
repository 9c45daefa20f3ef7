"""Read pools from Parquet files that contain encoded images, or paths and URLs of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from topb_scorer.pools.parquet_file import (
    PARQUET_READ_ERRORS,
    ids_as_strings,
    image_column,
    numbers_rows,
    open_parquet_file,
)
from topb_scorer.pools.pool import Columns, PoolItem, Unreadable, identity_of
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.storage import Location, Stores
from topb_scorer.pools.storage.location import unreadable_file

_READ_ROWS = 64
_FEW_ROW_GROUPS = 256
_RUN_ROWS = 512

_Row = tuple[str, bytes | str | Unreadable]


@dataclass(frozen=True)
class ParquetShard:
    """Consecutive row groups of one file."""

    file: Location
    row_groups: range
    rows: int
    identity: str
    id_column: str | None
    """None to name the rows by `name` and their numbers."""
    image_column: str
    """The column of images, of paths, or of structs with both."""
    stores: Stores
    name: str
    """The path of the file within the pool."""
    first_row: int
    """The number of the first row, counted in the file from 0."""

    def items(self) -> Iterator[PoolItem]:
        """Yield each row's image, taken from the row or read from its path or URL."""
        return map_ahead(self._item, self._rows(), is_remote=self._is_remote)

    def _rows(self) -> Iterator[_Row]:
        """Yield each row's id with its image, the path of its image, or the reason why it has none."""
        name = str(self.file).rpartition("/")[2]
        row_group, number = self.row_groups.start, self.first_row
        columns = [self.image_column, *([self.id_column] if self.id_column else [])]
        try:
            with open_parquet_file(self.file) as file:
                for row_group in self.row_groups:
                    row = 0
                    for batch in file.iter_batches(
                        _READ_ROWS,
                        row_groups=[row_group],
                        columns=columns,
                        use_threads=False,
                    ):
                        ids: Sequence[str | None] = (
                            ids_as_strings(batch.column(self.id_column))
                            if self.id_column
                            else [f"{self.name}:{number + i}" for i in range(len(batch))]
                        )
                        for id_, cell in zip(ids, batch.column(self.image_column), strict=True):
                            yield self._row(id_, cell.as_py(), f"{name}:{row_group}:{row}")
                            row += 1
                        number += len(batch)
        except PARQUET_READ_ERRORS as error:
            raise unreadable_file(self.file, "Parquet", f"row group {row_group}: {error}") from error

    def _row(self, id_: str | None, cell: Any, where: str) -> _Row:
        # The wire protocol cannot tell an empty id from a missing one.
        if not id_:
            return where, Unreadable("ID_MISSING", f"column {self.id_column} is empty at {where}")
        if isinstance(cell, dict):
            cell = cell.get("path") if cell["bytes"] is None else cell["bytes"]
        if isinstance(cell, bytes) or (isinstance(cell, str) and cell):
            return id_, cell
        fault = f"column {self.image_column} contains neither an image nor a path"
        return id_, Unreadable("IMAGE_MISSING", fault)

    def _is_remote(self, row: _Row) -> bool:
        return isinstance(row[1], str) and self.stores.is_remote(row[1], self.file)

    def _item(self, row: _Row) -> PoolItem:
        id_, image = row
        return PoolItem(id_, self.stores.read_image(image, self.file) if isinstance(image, str) else image)


def parquet_shards(location: Location, columns: Columns, stores: Stores, name: str) -> list[ParquetShard]:
    """Return the shards of a Parquet file. `row_group_runs` tells which row groups form a shard.

    Args:
        location: the file.
        columns: the columns of ids and images. If the id column is `ROW_NUMBER`, rows are named by their
            numbers.
        stores: opens the images of a column of paths.
        name: the path of the file within the pool.

    Raises:
        InvalidRequestError: a column is missing, occurs more than once or has the wrong type.
        UnreadablePoolError: the file is not Parquet or is damaged.
    """
    try:
        stamp = location.stamp()
        with open_parquet_file(location) as file:
            images = image_column(location, file.schema_arrow, columns)
            id_column = None if numbers_rows(file.schema_arrow, columns) else columns.id
            are_paths = columns.image not in file.schema_arrow.names
            group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            runs = row_group_runs(group_rows)
            stamps = [
                stores.digest_of_local_images(_paths(file, run, images), location) if are_paths else ""
                for run in runs
            ]
    except PARQUET_READ_ERRORS as error:
        raise unreadable_file(location, "Parquet", error) from error
    names = [columns.id, images, *([name] if id_column is None else [])]
    return [
        ParquetShard(
            file=location,
            row_groups=run,
            rows=sum(group_rows[i] for i in run),
            identity=identity_of("parquet", str(location), stamp, names, run.start, run.stop, files_stamp),
            id_column=id_column,
            image_column=images,
            stores=stores,
            name=name,
            first_row=sum(group_rows[: run.start]),
        )
        for run, files_stamp in zip(runs, stamps, strict=True)
    ]


def row_group_runs(group_rows: Sequence[int]) -> list[range]:
    """Return the row groups of each shard, given the number of rows in each row group.

    In a file with up to 256 row groups, each row group is a shard. In a file with more, consecutive row
    groups with up to 512 rows in total form one shard, because each shard costs a file in the score log.
    """
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
