"""Open a pool: find its files and their format, and divide them into shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from pyarrow import fs

from topb.pools import Pool, PoolFormatName
from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.csv_list import csv_shards
from topb_scorer.pools.folder import folder_shards, is_image_name
from topb_scorer.pools.parquet import parquet_shards
from topb_scorer.pools.pool import Columns, OpenPool, Shard
from topb_scorer.pools.read_ahead import map_ahead
from topb_scorer.pools.storage import AllowedRoots, FoundFile, Location, Stores
from topb_scorer.pools.vectors import VectorLayout, VectorShard
from topb_scorer.pools.vectors_npy import SIDE_FILES, npy_shards
from topb_scorer.pools.vectors_parquet import has_vectors, vector_parquet_shards
from topb_scorer.pools.webdataset import webdataset_shards

_FORMATS: dict[str, PoolFormatName] = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".csv": "csv",
    ".npy": "vectors",
}
"""The format of a file by its suffix. A Parquet file may hold vectors too."""


@dataclass(frozen=True)
class _Found:
    """The file, or the files in a folder, that a URI refers to."""

    uri: str
    location: Location
    """The file, or the folder that was listed."""
    files: Sequence[FoundFile] | None
    """The files in the folder; None for a single file."""
    by_glob: bool = False

    def locations(self, format: PoolFormatName) -> list[Location]:
        """Return the files to read. Files named by a glob or by their own URI may have any suffix."""
        if self.files is None:
            return [self.location]
        return [self._child(file) for file in self.files if self._is_read(file.id, format)]

    def name_of(self, file: Location) -> str:
        """Return the path of a file below the folder that was listed, or the name of a single file."""
        folder = str(self.location).rstrip("/") if self.files is not None else str(file).rpartition("/")[0]
        return str(file).removeprefix(f"{folder}/")

    def _is_read(self, name: str, format: PoolFormatName) -> bool:
        if self.by_glob:
            return format != "vectors" or not name.endswith(SIDE_FILES)
        found = _format_of(name)
        return found == format or (format == "vectors" and found == "parquet")

    def _child(self, file: FoundFile) -> Location:
        if not file.is_utf8:
            raise InvalidRequestError(
                f"{self.uri}: the name of {file.id} is not UTF-8; rename the file",
                reason="POOL_FILE_NAME",
                uri=self.uri,
            )
        return self.location.child(file.id)


def open_pool(
    pool: str | os.PathLike[str] | Pool, *, roots: AllowedRoots, limits: ImageLimits = DEFAULT_LIMITS
) -> OpenPool:
    """Open the pool at a path, a file:// URI or an s3:// URI.

    If no format is given, the suffix of a file (.parquet, .tar, .npy or .csv) determines it. In a folder,
    Parquet files, tars and NumPy files take precedence over images, and images over CSV files. Parquet files
    are a pool of vectors if the first of them has a column of vectors but neither images nor paths, or if the
    pool names a column of vectors.

    Args:
        pool: one file, a folder, or a glob; a `topb.Pool` also gives the format and the columns.
        roots: the locations that may be read.
        limits: size limits of images.

    Raises:
        InvalidRequestError: the URI or the format is invalid, or a column is missing or has the wrong type.
        NotFoundError: there is no such file or folder, or no file matches the glob.
        AccessDeniedError: the pool is outside `roots`.
        UnreadablePoolError: a file is damaged, or a folder or S3 cannot be read.
    """
    pool = pool if isinstance(pool, Pool) else Pool(pool)
    uri = os.fspath(pool.uri)
    if pool.format not in (None, *get_args(PoolFormatName)):
        raise InvalidRequestError(
            f"pool format {pool.format!r} is unknown; expected one of {', '.join(get_args(PoolFormatName))}",
            reason="POOL_FORMAT",
        )
    columns = Columns(
        pool.id_column or "id",
        pool.image_column or "image",
        pool.path_column or "path",
        pool.embedding_column or "embedding",
        pool.probabilities_column,
    )
    stores = Stores(roots, limits)
    found = _find(uri, stores)
    format = pool.format or _format_by_names(found)
    if pool.format is None and format == "parquet":
        files = found.locations(format)
        if pool.embedding_column or pool.probabilities_column or (files and has_vectors(files[0], columns)):
            format = "vectors"
    if format == "image-folder":
        if found.files is None:
            raise InvalidRequestError(
                f"{uri} is a file; format {format} requires a folder", reason="POOL_FORMAT", uri=uri
            )
        return OpenPool(folder_shards(found.location, found.files, limits.max_bytes), format)

    def shards_of(file: Location) -> Sequence[Shard]:
        if format == "vectors":
            if str(file).lower().endswith(".npy"):
                return npy_shards(file, columns.id, stores, found.name_of(file))
            return vector_parquet_shards(file, columns, found.name_of(file))
        if format == "webdataset":
            return webdataset_shards(file, limits.max_bytes)
        if format == "csv":
            return csv_shards(file, columns, stores)
        return parquet_shards(file, columns, stores, found.name_of(file))

    files = found.locations(format)
    opened = list(map_ahead(shards_of, files, is_remote=lambda file: file.is_remote))
    layout = _common_layout(files, opened) if format == "vectors" else None
    return OpenPool([shard for shards in opened for shard in shards], format, files, layout)


def _common_layout(files: Sequence[Location], shards: Sequence[Sequence[Shard]]) -> VectorLayout:
    """Return the sizes of the rows of all files.

    Raises:
        InvalidRequestError: with reason POOL_VECTORS_DIFFER.
    """
    common, first = VectorLayout(0), None
    for file, of_file in zip(files, shards, strict=True):
        layout = of_file[0].layout if of_file and isinstance(of_file[0], VectorShard) else common
        if not layout.width or layout == common:
            continue
        if first is not None:
            raise InvalidRequestError(
                f"{first} has {common}, but {file} has {layout}; expected the same sizes in all files",
                reason="POOL_VECTORS_DIFFER",
                file=file,
            )
        common, first = layout, file
    return common


def _find(uri: str, stores: Stores) -> _Found:
    location = stores.location(uri)
    glob = location.split_glob()
    if glob is not None:
        folder, pattern = glob
        is_deep = len(pattern) > 1 or pattern[0] == "**"
        below = folder.files_below(deep=is_deep) if folder.kind() == fs.FileType.Directory else ()
        matching = [file for file in sorted(below) if _matches(pattern, tuple(file.id.split("/")))]
        if not matching:
            raise NotFoundError(f"no file matches {uri}", reason="POOL_NOT_FOUND", uri=uri)
        return _Found(uri, folder, matching, by_glob=True)
    kind = location.kind()
    if kind == fs.FileType.NotFound:
        raise NotFoundError(
            f"there is no pool at {uri}; give the path or URI of a file, a folder or a glob",
            reason="POOL_NOT_FOUND",
            uri=uri,
        )
    if kind == fs.FileType.File:
        return _Found(uri, location, None)
    return _Found(uri, location, sorted(location.files_below()))


def _format_by_names(found: _Found) -> PoolFormatName:
    names = [str(found.location)] if found.files is None else [file.id for file in found.files]
    formats = {_format_of(name) for name in names}
    by_suffix = {format: suffix for suffix, format in _FORMATS.items() if format in formats - {"csv"}}
    if len(by_suffix) > 1:
        raise InvalidRequestError(
            f"{found.uri} contains {' and '.join(by_suffix.values())} files; give the format of the pool",
            reason="POOL_FORMAT",
            uri=found.uri,
        )
    for format in by_suffix:
        return format
    if found.files is not None and any(map(is_image_name, names)):
        return "image-folder"
    if "csv" in formats:
        return "csv"
    raise InvalidRequestError(
        f"{found.uri} is neither a .parquet, .tar, .csv or .npy file nor a folder of those or of images; "
        "give its format if its files have other suffixes or if the pool is empty",
        reason="POOL_FORMAT",
        uri=found.uri,
    )


def _format_of(name: str) -> PoolFormatName | None:
    return None if name.endswith(SIDE_FILES) else _FORMATS.get(Path(name).suffix.lower())


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        # A trailing ** matches every file below the folder.
        return len(pattern) == 1 or any(_matches(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(pattern[1:], path[1:])
