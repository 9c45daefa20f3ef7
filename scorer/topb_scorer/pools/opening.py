"""From a URI to a pool."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from topb_scorer.errors import InvalidRequestError, NotFoundError, UnreadablePoolError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.folder import holds_image, open_folder
from topb_scorer.pools.parquet import open_parquet
from topb_scorer.pools.pool import Columns, Pool
from topb_scorer.pools.roots import AllowedRoots


class PoolFormat(Enum):
    """How a pool at a URI is laid out."""

    PARQUET = "parquet"
    """A .parquet file, or a folder with some."""
    IMAGE_FOLDER = "image-folder"
    """A folder of image files."""


def open_pool(
    uri: str,
    *,
    format: PoolFormat | None = None,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    roots: AllowedRoots,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Pool:
    """The pool at a path or file:// URI; with no format, Parquet where there is some, else images.

    Raises:
        InvalidRequestError: the URI, the layout or a column is not one that can be read.
        NotFoundError: nothing is there.
        AccessDeniedError: it lies outside `roots`.
        UnreadablePoolError: a Parquet file is torn.
    """
    path = roots.path_of(uri)
    try:
        path.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no pool at {uri}", reason="POOL_NOT_FOUND", uri=uri) from error
    except OSError as error:
        raise UnreadablePoolError(
            f"{uri} cannot be read: {error.strerror}", reason="POOL_UNREADABLE", uri=uri
        ) from error
    if format is PoolFormat.IMAGE_FOLDER:
        if not path.is_dir():
            raise InvalidRequestError(f"{uri} is no folder", reason="POOL_FORMAT", uri=uri)
        return open_folder(path, roots, limits)
    files = [path] if path.is_file() else _parquet_files(path, roots)
    if files or (format is PoolFormat.PARQUET and path.is_dir()):
        return open_parquet(files, columns, roots, limits)
    if format is None and holds_image(path):
        return open_folder(path, roots, limits)
    raise InvalidRequestError(
        f"{uri} holds neither .parquet files nor images; name its format if an empty pool is meant",
        reason="POOL_FORMAT",
        uri=uri,
    )


def _parquet_files(folder: Path, roots: AllowedRoots) -> list[Path]:
    """Those in the folder and below, but for hidden ones and those in hidden folders."""
    files = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]
    shown = [path for path in files if not any(map(_is_hidden, path.relative_to(folder).parts))]
    return [roots.path_of(str(path)) for path in shown]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
