"""From a URI to a pool: find the files, tell their format, and open them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.csv_list import open_csv_lists
from topb_scorer.pools.folder import is_image_name, open_folder
from topb_scorer.pools.parquet import open_parquet
from topb_scorer.pools.pool import Columns, Pool
from topb_scorer.pools.storage import AllowedRoots, FoundFile, Kind, Location, Stores
from topb_scorer.pools.webdataset import open_webdataset


class PoolFormat(Enum):
    """How the files of a pool are laid out."""

    PARQUET = "parquet"
    """Parquet files with encoded images, or with their paths and URLs."""
    IMAGE_FOLDER = "image-folder"
    """A folder of image files."""
    WEBDATASET = "webdataset"
    """Tar files in which the members with the same key are one sample."""
    CSV = "csv"
    """CSV files with the paths and URLs of images."""


_SUFFIXES = {".parquet": PoolFormat.PARQUET, ".tar": PoolFormat.WEBDATASET, ".csv": PoolFormat.CSV}


@dataclass(frozen=True)
class _Found:
    """What a URI leads to: one file, or files below a folder."""

    uri: str
    location: Location
    """The file, or the folder that was listed."""
    files: Sequence[FoundFile] | None
    """None for one file."""
    by_glob: bool = False

    def named(self, format: PoolFormat) -> Sequence[FoundFile]:
        """Return the files with the suffix of this format."""
        return [file for file in self.files or () if _format_of(file.id) is format]

    def locations(self, format: PoolFormat) -> list[Location]:
        """Return the files to read. A glob or a file's own URI selects files whatever their suffix."""
        if self.files is None:
            return [self.location]
        return [self._child(file) for file in (self.files if self.by_glob else self.named(format))]

    def _child(self, file: FoundFile) -> Location:
        if not file.is_utf8:
            raise InvalidRequestError(
                f"{self.uri}: the name of {file.id} is not UTF-8; rename the file",
                reason="POOL_FILE_NAME",
                uri=self.uri,
            )
        return self.location.child(file.id)


def open_pool(
    uri: str,
    *,
    format: PoolFormat | None = None,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    roots: AllowedRoots,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Pool:
    """Open the pool at a path, a file:// URI or an s3:// URI, which may be a glob.

    Args:
        uri: One file, a folder, or a glob.
        format: None detects the format by name: .parquet, .tar and .csv files are what their suffix says. A
            folder is a pool of its Parquet files or tars if it has any, else of its images, else of its CSV
            files.
        columns: The columns of Parquet and CSV files.
        roots: What may be read.
        limits: The largest image that is read.

    Raises:
        InvalidRequestError: The URI, the format or a column is not one that can be read.
        NotFoundError: Nothing is there.
        AccessDeniedError: It is outside `roots`.
        UnreadablePoolError: A file is damaged, or a folder or S3 cannot be read.
    """
    stores = Stores(roots, limits)
    found = _find(uri, stores)
    format = format or _format_by_names(found)
    if format is PoolFormat.IMAGE_FOLDER:
        if found.files is None:
            raise InvalidRequestError(
                f"{uri} is not a folder, as format {format.value} requires", reason="POOL_FORMAT", uri=uri
            )
        return open_folder(found.location, found.files)
    files = found.locations(format)
    if format is PoolFormat.WEBDATASET:
        return open_webdataset(files, max_bytes=limits.max_bytes)
    if format is PoolFormat.CSV:
        return open_csv_lists(files, columns, stores)
    return open_parquet(files, columns, stores)


def _find(uri: str, stores: Stores) -> _Found:
    location = stores.location(uri)
    glob = location.split_glob()
    if glob is not None:
        folder, pattern = glob
        is_deep = len(pattern) > 1 or pattern[0] == "**"
        below = folder.files_below(deep=is_deep) if folder.kind() is Kind.FOLDER else ()
        matching = [file for file in below if _matches(pattern, tuple(file.id.split("/")))]
        if not matching:
            raise NotFoundError(f"no file matches {uri}", reason="POOL_NOT_FOUND", uri=uri)
        return _Found(uri, folder, _sorted(matching), by_glob=True)
    kind = location.kind()
    if kind is Kind.NOTHING:
        raise NotFoundError(f"there is no pool at {uri}", reason="POOL_NOT_FOUND", uri=uri)
    if kind is Kind.FILE:
        return _Found(uri, location, None)
    return _Found(uri, location, _sorted(location.files_below()))


def _format_by_names(found: _Found) -> PoolFormat:
    if found.files is None:
        formats = {_format_of(found.location.name)}
    else:
        formats = {_format_of(file.id) for file in found.files}
        if {PoolFormat.PARQUET, PoolFormat.WEBDATASET} <= formats:
            raise InvalidRequestError(
                f"{found.uri} contains both .parquet and .tar files; name the format that is meant",
                reason="POOL_FORMAT",
                uri=found.uri,
            )
        if any(is_image_name(file.id) for file in found.files):
            formats = formats - {PoolFormat.CSV} | {PoolFormat.IMAGE_FOLDER}
    # In the order of precedence.
    for format_ in (PoolFormat.PARQUET, PoolFormat.WEBDATASET, PoolFormat.CSV, PoolFormat.IMAGE_FOLDER):
        if format_ in formats:
            return format_
    raise InvalidRequestError(
        f"{found.uri} is neither a .parquet, .tar or .csv file nor a folder of those or of images; "
        "name its format if its files have other suffixes, or if an empty pool is meant",
        reason="POOL_FORMAT",
        uri=found.uri,
    )


def _format_of(name: str) -> PoolFormat | None:
    return _SUFFIXES.get(Path(name).suffix.lower())


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        # A trailing ** matches every file below.
        return len(pattern) == 1 or any(_matches(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(pattern[1:], path[1:])


def _sorted(files: Iterable[FoundFile]) -> list[FoundFile]:
    return sorted(files, key=lambda file: file.id)
