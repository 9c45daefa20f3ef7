"""Read pools of vectors from Parquet files with a column of embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.parquet_file import (
    PARQUET_READ_ERRORS,
    check_id_column,
    check_unique,
    ids_as_strings,
    numbers_rows,
    open_parquet_file,
    unfit_column,
)
from topb_scorer.pools.pool import Columns, identity_of
from topb_scorer.pools.storage import Location
from topb_scorer.pools.storage.location import unreadable_file
from topb_scorer.pools.vectors import (
    ListColumn,
    VectorLayout,
    VectorRows,
    checked_rows,
    numbers_of_lists,
)

_PROBABILITIES = "probabilities"
_PROBED_ROWS = 64


@dataclass(frozen=True)
class ParquetVectorShard:
    """Consecutive rows of one file, which may span row groups."""

    identity: str
    rows: int
    layout: VectorLayout
    first_row: int
    """The number of the first row, counted in the file from 0."""
    id_column: str | None
    """None to name the rows by `name` and their numbers."""
    columns: Columns
    name: str
    """The path of the file within the pool."""
    reader: _RowReader
    """Shared by the shards of the file."""

    def blocks(self, *, with_probabilities: bool) -> Iterator[VectorRows]:
        columns = self.columns
        vectors = ListColumn(columns.embedding, "VECTOR_MISSING", "VECTOR_WIDTH")
        lists = [(vectors, self.layout.width)]
        if with_probabilities and columns.probabilities is not None:
            beside = ListColumn(columns.probabilities, "PROBABILITIES_MISSING", "PROBABILITIES_WIDTH")
            lists.append((beside, self.layout.classes))
        names = [column.name for column, _ in lists] + ([self.id_column] if self.id_column else [])
        start = self.first_row
        for batch in self.reader.read(names, start, start + self.rows, self.layout.block_rows):
            where = [f"{self.name}:{row}" for row in range(start, start + len(batch))]
            ids = ids_as_strings(batch.column(self.id_column)) if self.id_column else where
            numbers = [numbers_of_lists(batch.column(column.name), size, column) for column, size in lists]
            yield checked_rows(ids, numbers[0], numbers[1] if len(numbers) > 1 else None, where.__getitem__)
            start += len(batch)


def has_vectors(location: Location, columns: Columns) -> bool:
    """Return whether a Parquet file has a column of vectors, and neither images nor their paths.

    Raises:
        UnreadablePoolError: the file is not Parquet or is damaged.
    """
    try:
        with open_parquet_file(location) as file:
            names = set(file.schema_arrow.names)
    except PARQUET_READ_ERRORS as error:
        raise unreadable_file(location, "Parquet", error) from error
    return columns.embedding in names and not names & {columns.image, columns.path}


def vector_parquet_shards(location: Location, columns: Columns, name: str) -> list[ParquetVectorShard]:
    """Return the shards of a Parquet file of vectors, each of `VectorLayout.shard_rows` rows.

    The sizes of lists without a fixed size are those of the first row that has any.

    Args:
        location: the file.
        columns: the columns of ids, vectors and probabilities. If the id column is `ROW_NUMBER`, rows are
            named by their numbers.
        name: the path of the file within the pool.

    Raises:
        InvalidRequestError: a column is missing, occurs more than once or has the wrong type.
        UnreadablePoolError: the file is not Parquet or is damaged.
    """
    try:
        stamp = location.stamp()
        with open_parquet_file(location) as file:
            schema = file.schema_arrow
            columns = _with_probabilities(columns, schema)
            _check_columns(location, schema, columns)
            layout = VectorLayout(
                _list_size(file, columns.embedding),
                _list_size(file, columns.probabilities) if columns.probabilities else 0,
            )
            group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    except PARQUET_READ_ERRORS as error:
        raise unreadable_file(location, "Parquet", error) from error
    id_column = None if numbers_rows(schema, columns) else columns.id
    reader = _RowReader(location, tuple(np.cumsum([0, *group_rows]).tolist()))
    names = [columns.id, columns.embedding, columns.probabilities, *([name] if id_column is None else [])]
    rows, size = sum(group_rows), layout.shard_rows
    return [
        ParquetVectorShard(
            identity=identity_of(
                "vectors", str(location), stamp, names, start, size, layout.width, layout.classes
            ),
            rows=min(size, rows - start),
            layout=layout,
            first_row=start,
            id_column=id_column,
            columns=columns,
            name=name,
            reader=reader,
        )
        for start in range(0, rows, size)
    ]


@dataclass(frozen=True)
class _RowReader:
    """Reads consecutive rows of a file. To read on where it stopped, it does not read a row group again."""

    file: Location
    group_starts: tuple[int, ...]
    """The number of the first row of each row group, and the number of rows of the file."""
    parked: list[_Position] = field(default_factory=list)
    """Where the last call stopped. Each position is used by one call at a time."""

    def read(self, columns: list[str], start: int, stop: int, size: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from `start` to `stop` (exclusive) in batches of at most `size` rows.

        Raises:
            UnreadablePoolError: the file was changed or is damaged.
        """
        position = self._position_at(columns, start, size)
        try:
            while position.row < stop:
                part = position.take(stop)
                before = max(0, start - position.row)
                position.row += len(part)
                if before < len(part):
                    yield part.slice(before)
        except (*PARQUET_READ_ERRORS, StopIteration) as error:
            fault = str(error) or f"row {position.row} is missing"
            raise unreadable_file(self.file, "Parquet", fault) from error
        self.parked[:] = [position]

    def _position_at(self, columns: list[str], start: int, size: int) -> _Position:
        group = int(np.searchsorted(self.group_starts, start, side="right")) - 1
        with suppress(IndexError):
            parked = self.parked.pop()
            if parked.columns == columns and self.group_starts[group] <= parked.row <= start:
                return parked
        groups = range(group, len(self.group_starts) - 1)
        return _Position(columns, self.group_starts[group], self._batches(columns, groups, size))

    def _batches(self, columns: list[str], groups: range, size: int) -> Iterator[pa.RecordBatch]:
        with open_parquet_file(self.file) as file:
            yield from file.iter_batches(size, row_groups=list(groups), columns=columns, use_threads=False)


@dataclass
class _Position:
    """A place in a file, from which rows are read on."""

    columns: list[str]
    row: int
    """The number of the next row."""
    batches: Iterator[pa.RecordBatch]
    left: pa.RecordBatch | None = None
    """Rows that were read but not taken."""

    def take(self, stop: int) -> pa.RecordBatch:
        """Return the next rows, at most those before row `stop`. Raise StopIteration after the last row."""
        batch = next(self.batches) if self.left is None else self.left
        part = batch.slice(0, stop - self.row)
        self.left = batch.slice(len(part)) if len(part) < len(batch) else None
        return part


def _with_probabilities(columns: Columns, schema: pa.Schema) -> Columns:
    if columns.probabilities is None and _PROBABILITIES in schema.names:
        return Columns(columns.id, columns.image, columns.path, columns.embedding, _PROBABILITIES)
    return columns


def _check_columns(location: Location, schema: pa.Schema, columns: Columns) -> None:
    lists = [columns.embedding, *([columns.probabilities] if columns.probabilities else [])]
    check_unique(location, schema, [columns.id, *lists])
    if not numbers_rows(schema, columns):
        check_id_column(location, schema, columns.id)
    for column in lists:
        if column not in schema.names:
            what = "vectors" if column == columns.embedding else "probabilities"
            raise InvalidRequestError(
                f"{location} has no column of {what} {column!r}; choose one of its columns: "
                f"{', '.join(schema.names)}",
                reason="POOL_COLUMN_MISSING",
                file=location,
            )
        if not _holds_numbers(schema.field(column).type):
            raise unfit_column(location, schema, column, "lists of float16, float32 or float64")


def _holds_numbers(type_: pa.DataType) -> bool:
    type_ = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return bool(is_list and pa.types.is_floating(type_.value_type))


def _list_size(file: pq.ParquetFile, column: str) -> int:
    """Return the number of elements in the lists of a column, 0 if it has none."""
    type_ = file.schema_arrow.field(column).type
    type_ = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
    if pa.types.is_fixed_size_list(type_):
        return int(type_.list_size)
    for batch in file.iter_batches(_PROBED_ROWS, columns=[column], use_threads=False):
        lists = batch.column(0)
        lists = lists.storage if isinstance(lists, pa.ExtensionArray) else lists
        sizes = pc.list_value_length(lists).drop_null().to_numpy()
        if sizes.any():
            return int(sizes[np.flatnonzero(sizes)[0]])
    return 0
