"""What a selection reads: a pool of images, and a file of ids to leave out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, overload

from topb.errors import InvalidRequestError

IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""The suffixes of the files that `images_in` takes for images."""

PoolFormatName = Literal["parquet", "image-folder", "webdataset", "csv", "vectors"]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that the scorer reads, with its layout. None leaves a choice to the scorer."""

    uri: str | os.PathLike[str]
    """A path, a glob, or a file:// or s3:// URI, within the scorer's allowed roots."""
    format: PoolFormatName | None = None
    """The format of the files; by default, the scorer detects it."""
    id_column: str | None = None
    """The column of ids in Parquet files and CSV lists; "id" by default. "#row" gives each row of a Parquet
    file without such a column the id "file:row"."""
    image_column: str | None = None
    """The column of encoded images in Parquet files; "image" by default."""
    path_column: str | None = None
    """The column of paths or URIs of images in Parquet files and CSV lists; "path" by default."""
    embedding_column: str | None = None
    """The column of vectors in Parquet files, lists of floating-point numbers; "embedding" by default."""
    probabilities_column: str | None = None
    """The column of predicted class probabilities beside vectors, lists of floating-point numbers; by default
    "probabilities", if there is such a column."""


@dataclass(frozen=True, slots=True)
class ExcludeFile:
    """A Parquet file that the server reads, with ids to leave out of a selection."""

    uri: str | os.PathLike[str]
    """A path, or a file:// or s3:// URI, within the server's allowed roots."""
    column: str = "id"
    """The column of ids, which are strings or integers."""


class _LocalImages(Sequence[tuple[str, bytes]]):
    """The images of a local folder. A file is read when its row is taken."""

    def __init__(self, rows: Sequence[tuple[str, Path]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> tuple[str, bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> _LocalImages: ...

    def __getitem__(self, index: int | slice) -> tuple[str, bytes] | _LocalImages:
        if isinstance(index, slice):
            return _LocalImages(self._rows[index])
        id_, path = self._rows[index]
        return id_, path.read_bytes()


def images_in(folder: str | os.PathLike[str]) -> Sequence[tuple[str, bytes]]:
    """Return the images in a local folder and below it, as rows of a pool to send.

    Each row is the id and the encoded bytes of one file; the id is the path relative to the folder, as for a
    folder that the server reads. The rows are sorted by id, so a repeated request gives the same pool. A file
    is read when its row is taken. Hidden files, files without a suffix in `IMAGE_SUFFIXES`, and what links to
    folders lead to are left out.

    Raises:
        InvalidRequestError: If there is no such folder.
        OSError: If a folder cannot be listed, or later if a file cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidRequestError(
            f"{root} is not a folder on this machine; expected a folder of image files", reason="POOL_INVALID"
        )
    rows = []
    for parent, subfolders, names in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                id_ = os.fsencode(path.relative_to(root).as_posix()).decode(errors="backslashreplace")
                rows.append((id_, path))
    return _LocalImages(sorted(rows))


def _raise(error: OSError) -> NoReturn:
    raise error
