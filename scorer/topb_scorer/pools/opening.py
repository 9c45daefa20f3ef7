"""From a URI to a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from topb_scorer.errors import InvalidRequestError, NotFoundError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.folder import is_image_name, open_folder
from topb_scorer.pools.globs import glob_of
from topb_scorer.pools.image_list import open_lists
from topb_scorer.pools.locations import Place
from topb_scorer.pools.parquet import open_parquet
from topb_scorer.pools.pool import Columns, Pool
from topb_scorer.pools.roots import AllowedRoots
from topb_scorer.pools.storage import FoundFile, Kind, Storage
from topb_scorer.pools.webdataset import open_webdataset


class PoolFormat(Enum):
    """How a pool at a URI is laid out."""

    PARQUET = "parquet"
    """Parquet files, with images or with paths of images."""
    IMAGE_FOLDER = "image-folder"
    """A folder of image files."""
    WEBDATASET = "webdataset"
    """Tar files whose members with one key are one sample."""
    CSV = "csv"
    """Lists of paths or URLs of images."""


_SUFFIXES = {".parquet": PoolFormat.PARQUET, ".tar": PoolFormat.WEBDATASET, ".csv": PoolFormat.CSV}


@dataclass(frozen=True)
class _Found:
    """What is at a URI: one file, or files below a folder."""

    uri: str
    folder: Place | None
    files: Sequence[FoundFile]
    by_glob: bool = False

    def named(self, format: PoolFormat) -> list[FoundFile]:
        return [file for file in self.files if _SUFFIXES.get(Path(file.id).suffix.lower()) is format]


def open_pool(
    uri: str,
    *,
    format: PoolFormat | None = None,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    roots: AllowedRoots,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Pool:
    """The pool at a path, a file:// or an s3:// URI, which may be a glob.

    With no format it goes by names: .parquet, .tar and .csv files are what they are called; in a folder,
    Parquet files or tars count if there are some, else images, else CSV lists.

    Raises:
        InvalidRequestError: the URI, the layout or a column is not one that can be read.
        NotFoundError: nothing is there.
        AccessDeniedError: it lies outside `roots`.
        UnreadablePoolError: a file is torn, or a folder or S3 cannot be read.
    """
    place = roots.place_of(uri)
    storage = Storage(roots, limits)
    found = _find(uri, place, storage)
    format = format or _format_by_names(found)
    if format is PoolFormat.IMAGE_FOLDER:
        if found.folder is None:
            raise InvalidRequestError(f"{uri} is no folder", reason="POOL_FORMAT", uri=uri)
        return open_folder(found.folder, found.files, storage)
    # Who writes a glob, or names one file, says which files are meant.
    chosen = found.named(format) if found.folder is not None and not found.by_glob else found.files
    places = [
        _place_of(file, place if found.folder is None else found.folder, roots, found) for file in chosen
    ]
    if format is PoolFormat.WEBDATASET:
        return open_webdataset(places, storage)
    if format is PoolFormat.CSV:
        return open_lists(places, columns, storage)
    return open_parquet(places, columns, storage)


def _find(uri: str, place: Place, storage: Storage) -> _Found:
    glob = glob_of(place, storage)
    if glob is not None:
        is_there = storage.kind_of(glob.folder) is Kind.FOLDER
        below = storage.files_below(glob.folder, deep=glob.is_deep) if is_there else ()
        matching = sorted((file for file in below if glob.matches(file.id)), key=_id_of)
        if not matching:
            raise NotFoundError(f"no file matches {uri}", reason="POOL_NOT_FOUND", uri=uri)
        return _Found(uri, glob.folder, matching, by_glob=True)
    kind = storage.kind_of(place)
    if kind is Kind.NOTHING:
        raise NotFoundError(f"there is no pool at {uri}", reason="POOL_NOT_FOUND", uri=uri)
    if kind is Kind.FILE:
        return _Found(uri, None, [FoundFile(place.name, True, -1, -1)])
    return _Found(uri, place, sorted(storage.files_below(place), key=_id_of))


def _format_by_names(found: _Found) -> PoolFormat:
    formats = {format_ for format_ in _SUFFIXES.values() if found.named(format_)}
    if {PoolFormat.PARQUET, PoolFormat.WEBDATASET} <= formats:
        raise InvalidRequestError(
            f"{found.uri} holds .parquet and .tar files: name the format that is meant",
            reason="POOL_FORMAT",
            uri=found.uri,
        )
    if found.folder is not None and any(is_image_name(file.id) for file in found.files):
        formats.discard(PoolFormat.CSV)
        formats = formats or {PoolFormat.IMAGE_FOLDER}
    for format_ in (*_SUFFIXES.values(), PoolFormat.IMAGE_FOLDER):
        if format_ in formats:
            return format_
    raise InvalidRequestError(
        f"{found.uri} is or holds no .parquet, .tar or .csv file, and is no folder of images; "
        "name its format if it is one all the same, or if an empty pool is meant",
        reason="POOL_FORMAT",
        uri=found.uri,
    )


def _place_of(file: FoundFile, base: Place, roots: AllowedRoots, found: _Found) -> Place:
    if found.folder is None:
        return base
    if not file.is_utf8:
        raise InvalidRequestError(
            f"{found.uri}: the name of {file.id} is not UTF-8", reason="POOL_FILE_NAME", uri=found.uri
        )
    return roots.path_of(str(base / file.id)) if isinstance(base, Path) else base.below(file.id)


def _id_of(file: FoundFile) -> str:
    return file.id
