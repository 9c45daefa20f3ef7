"""Read the images that a selection excludes: their ids and, if they are known, their content digests."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import fs

from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools.digests_by_id import DigestsById, as_digests
from topb_scorer.pools.parquet_file import PARQUET_READ_ERRORS, check_id_column, open_parquet_file
from topb_scorer.pools.pool import DIGEST_BYTES
from topb_scorer.pools.storage import AllowedRoots, Stores

DIGEST_COLUMN = "digest"


def read_exclusion(uri: str, column: str, roots: AllowedRoots) -> DigestsById:
    """Return the images that a Parquet file names: the content digest of each by id. Null ids are left out.

    The digests are read from the column `digest`, fixed-size binary of 16 bytes, if the file has one. A
    digest that is not known is `NO_DIGEST`.

    Args:
        uri: a path, a file:// URI or an s3:// URI.
        column: the name of a column of ids, which are strings or integers.
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
            schema = file.schema_arrow
            check_id_column(location, schema, column)
            has_digests = DIGEST_COLUMN in schema.names and schema.field(DIGEST_COLUMN).type == pa.binary(
                DIGEST_BYTES
            )
            table = file.read([column, *([DIGEST_COLUMN] if has_digests else [])], use_threads=False)
            return _digests_by_id(table, column)
    except PARQUET_READ_ERRORS as error:
        raise UnreadablePoolError(
            f"{location} cannot be read as Parquet: {error}; give a Parquet file with the ids to exclude",
            reason="EXCLUSION_UNREADABLE",
            file=location,
        ) from error


def _digests_by_id(table: pa.Table, column: str) -> DigestsById:
    # Integers and dictionaries cannot be cast to large strings.
    ids = table.column(column).cast(pa.string())
    if DIGEST_COLUMN not in table.column_names:
        return DigestsById(ids.drop_null())
    named = table.column(DIGEST_COLUMN).filter(ids.is_valid())
    return DigestsById(ids.drop_null(), as_digests(scalar.as_py() for scalar in named))
