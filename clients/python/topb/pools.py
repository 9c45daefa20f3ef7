"""What a selection reads: a pool of images, and a file of ids to leave out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

PoolFormatName = Literal["parquet", "image-folder", "webdataset", "csv"]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that the scorer reads, with its layout. None leaves a choice to the scorer."""

    uri: str | os.PathLike[str]
    """A path, a glob, or a file:// or s3:// URI, within the scorer's allowed roots."""
    format: PoolFormatName | None = None
    """The format of the files; by default, the scorer detects it."""
    id_column: str | None = None
    """The column of ids in Parquet files and CSV lists; "id" by default."""
    image_column: str | None = None
    """The column of encoded images in Parquet files; "image" by default."""
    path_column: str | None = None
    """The column of paths or URIs of images in Parquet files and CSV lists; "path" by default."""


@dataclass(frozen=True, slots=True)
class ExcludeFile:
    """A Parquet file that the server reads, with ids to leave out of a selection."""

    uri: str | os.PathLike[str]
    """A path, or a file:// or s3:// URI, within the server's allowed roots."""
    column: str = "id"
    """The column of ids, which are strings or integers."""
