"""Read the ids that a selection excludes."""

from __future__ import annotations

from pyarrow import fs

from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools.parquet_file import (
    PARQUET_READ_ERRORS,
    check_id_column,
    ids_as_strings,
    open_parquet_file,
)
from topb_scorer.pools.storage import AllowedRoots, Stores


def read_excluded_ids(uri: str, column: str, roots: AllowedRoots) -> list[str]:
    """Return the ids in one column of a Parquet file. Nulls are left out.

    Args:
        uri: a path, a file:// URI or an s3:// URI.
        column: the name of a column of strings or integers.
        roots: the locations that may be read.

    Raises:
        InvalidRequestError: there is no such file or column, or the column has another type.
        AccessDeniedError: the file is outside `roots`.
        UnreadablePoolError: the file is not Parquet or is damaged.
    """
    location = Stores(roots).location(uri)
    if location.kind() != fs.FileType.File:
        raise InvalidRequestError(
            f"there is no file {uri}; give a Parquet file with the ids to exclude",
            reason="EXCLUSION_NOT_FOUND",
        )
    try:
        with open_parquet_file(location) as file:
            check_id_column(location, file.schema_arrow, column)
            ids = ids_as_strings(file.read([column], use_threads=False).column(0))
            return [id_ for id_ in ids if id_ is not None]
    except PARQUET_READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{location} cannot be read as Parquet: {error}; give a Parquet file with the ids to exclude",
            reason="EXCLUSION_UNREADABLE",
            file=location,
        ) from error
