"""Which columns of a Parquet file are a pool's ids and images."""

from __future__ import annotations

from enum import Enum

import pyarrow as pa

from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.locations import Place
from topb_scorer.pools.pool import Columns


class Layout(Enum):
    """Where a file's images stand."""

    BYTES = "bytes"
    """In the file."""
    BYTES_OR_PATHS = "bytes or paths"
    """In the file or, where the bytes are null, at the path beside them."""
    PATHS = "paths"
    """At paths or URIs."""


def layout_of(path: Place, schema: pa.Schema, columns: Columns) -> Layout:
    """Where the images of a file with this schema stand.

    Raises:
        InvalidRequestError: it lacks the columns, or has one twice, or they hold something else.
    """
    for column in (columns.id, columns.image, columns.path):
        if schema.names.count(column) > 1:
            raise InvalidRequestError(
                f"{path} has {schema.names.count(column)} columns {column!r}; expected one",
                reason="POOL_COLUMN_AMBIGUOUS",
                file=path,
            )
    check_id_column(path, schema, columns.id)
    if columns.image in schema.names:
        type_ = schema.field(columns.image).type
        if not _holds_images(type_):
            raise _unfit(path, schema, columns.image, "binary, or a struct with a binary field `bytes`")
        has_path = pa.types.is_struct(type_) and any(
            field.name == "path" and _is_string(field.type) for field in type_
        )
        return Layout.BYTES_OR_PATHS if has_path else Layout.BYTES
    if columns.path in schema.names:
        if _is_string(_value_type(schema.field(columns.path).type)):
            return Layout.PATHS
        raise _unfit(path, schema, columns.path, "strings")
    raise InvalidRequestError(
        f"{path} has neither an image column {columns.image!r} nor a path column {columns.path!r}; "
        f"it has {', '.join(schema.names)}: name the right one",
        reason="POOL_COLUMN_MISSING",
        file=path,
    )


def check_id_column(path: Place, schema: pa.Schema, column: str) -> None:
    """Raises InvalidRequestError unless the column is there, and holds strings or integers."""
    if column not in schema.names:
        raise InvalidRequestError(
            f"{path} has no id column {column!r}; it has {', '.join(schema.names)}: name the right one",
            reason="POOL_COLUMN_MISSING",
            file=path,
        )
    type_ = _value_type(schema.field(column).type)
    if not (_is_string(type_) or pa.types.is_integer(type_)):
        raise _unfit(path, schema, column, "strings or integers")


def _unfit(path: Place, schema: pa.Schema, column: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path}: column {column!r} holds {schema.field(column).type}; expected {expected}",
        reason="POOL_COLUMN_TYPE",
        file=path,
    )


def _value_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


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
