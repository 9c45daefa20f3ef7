"""Open Parquet files on any store, and find their columns of ids and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.pool import Columns
from topb_scorer.pools.storage import Location, ReadPattern
from topb_scorer.pools.storage.location import READ_ERRORS, buffer_bytes

ROW_NUMBER = "#row"
"""Given in place of the id column, it names each row by its file and its number."""

_STRINGS = (pa.string(), pa.large_string(), pa.string_view())
_BINARIES = (pa.binary(), pa.large_binary(), pa.binary_view())
# pyarrow raises UnicodeDecodeError only when it converts text that is not UTF-8 to Python strings.
PARQUET_READ_ERRORS = (*READ_ERRORS, UnicodeDecodeError)
"""The exceptions that reading a Parquet file raises, on any store."""


@contextmanager
def open_parquet_file(location: Location) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Row groups of any size are read through a small buffer."""
    with location.open() as source:
        yield pq.ParquetFile(
            source,
            buffer_size=buffer_bytes(location, ReadPattern.THROUGH),
            pre_buffer=False,
            page_checksum_verification=True,
        )


def image_column(location: Location, schema: pa.Schema, columns: Columns) -> str:
    """Return the name of the column of images or, if the file has none, of the column of paths.

    Raises:
        InvalidRequestError: a column is missing, occurs more than once or has the wrong type.
    """
    check_unique(location, schema, (columns.id, columns.image, columns.path))
    if not numbers_rows(schema, columns):
        check_id_column(location, schema, columns.id)
    if columns.image in schema.names:
        type_ = schema.field(columns.image).type
        if _holds_images(type_):
            return columns.image
        raise unfit_column(location, schema, columns.image, "binary, or a struct with a binary field `bytes`")
    if columns.path in schema.names:
        if _value_type(schema.field(columns.path).type) in _STRINGS:
            return columns.path
        raise unfit_column(location, schema, columns.path, "strings")
    raise InvalidRequestError(
        f"{location} has no image column {columns.image!r}, no path column {columns.path!r}, and no column "
        f"of vectors {columns.embedding!r}; "
        f"choose one of its columns: {', '.join(schema.names)}",
        reason="POOL_COLUMN_MISSING",
        file=location,
    )


def check_unique(location: Location, schema: pa.Schema, columns: Iterable[str]) -> None:
    """Raise InvalidRequestError if the file has several columns with one of these names."""
    for column in columns:
        if schema.names.count(column) > 1:
            raise InvalidRequestError(
                f"{location} has {schema.names.count(column)} columns named {column!r}; expected only one",
                reason="POOL_COLUMN_AMBIGUOUS",
                file=location,
            )


def numbers_rows(schema: pa.Schema, columns: Columns) -> bool:
    """Return whether rows are named by their numbers, because the request says so in place of a column."""
    return columns.id == ROW_NUMBER and ROW_NUMBER not in schema.names


def check_id_column(location: Location, schema: pa.Schema, column: str) -> None:
    """Raise InvalidRequestError unless the column exists and contains strings or integers."""
    if column not in schema.names:
        raise InvalidRequestError(
            f"{location} has no id column {column!r}; choose one of its columns: {', '.join(schema.names)}. "
            f"If none of them identifies an image of a pool, give {ROW_NUMBER} to number the rows",
            reason="POOL_COLUMN_MISSING",
            file=location,
        )
    type_ = _value_type(schema.field(column).type)
    if not (type_ in _STRINGS or pa.types.is_integer(type_)):
        raise unfit_column(location, schema, column, "strings or integers")


def ids_as_strings(ids: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Convert ids that are strings or integers to strings. A null becomes None."""
    strings: list[str | None] = ids.cast(pa.string()).to_pylist()
    return strings


def unfit_column(location: Location, schema: pa.Schema, column: str, expected: str) -> InvalidRequestError:
    """Return the error to raise if a column has a type that cannot be used."""
    return InvalidRequestError(
        f"{location}: column {column!r} contains {schema.field(column).type}; expected {expected}",
        reason="POOL_COLUMN_TYPE",
        file=location,
    )


def _value_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _holds_images(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" and field.type in _BINARIES for field in type_)
    return type_ in _BINARIES
