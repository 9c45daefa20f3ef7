"""A folder of image files, listed once and cut into slices that stay put when files come and go."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from PIL import Image

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools.files import read_image_file
from topb_scorer.pools.pool import Pool, PoolItem, Unreadable, identity_of
from topb_scorer.pools.roots import AllowedRoots

# A slice ends after a file whose name hashes to 0 modulo this, so a new file changes its own slice alone.
_MEAN_SLICE_ROWS = 512
_MAX_SLICE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    """With escapes for bytes that are not UTF-8, which no id can hold; then it names no file."""
    is_utf8: bool
    size: int
    modified_ns: int


@dataclass(frozen=True)
class FolderShard:
    """A run of a folder's files in the order of their ids."""

    root: Path
    files: tuple[_File, ...]
    roots: AllowedRoots
    limits: ImageLimits

    @property
    def identity(self) -> str:
        """Of the folder and of the names, sizes and modification times of the files."""
        stamps = [(file.id, file.size, file.modified_ns) for file in self.files]
        return identity_of("folder", str(self.root), stamps)

    @property
    def rows(self) -> int:
        """One a file."""
        return len(self.files)

    def items(self) -> Iterator[PoolItem]:
        """Each file's bytes; a file whose name is not that of an image is a row that cannot be read."""
        for file in self.files:
            yield PoolItem(file.id, self._image(file))

    def _image(self, file: _File) -> bytes | Unreadable:
        if not file.is_utf8:
            return Unreadable("FILE_NAME_NOT_UTF8", f"the name of {file.id} is not UTF-8")
        if not is_image_name(file.id):
            return Unreadable("FILE_NOT_AN_IMAGE", f"{file.id} is not named as an image")
        return read_image_file(str(self.root / file.id), self.roots, self.limits)


def open_folder(root: Path, roots: AllowedRoots, limits: ImageLimits) -> Pool:
    """Lists `root` and what is below it. An id is a path relative to `root`, with `/`.

    Hidden files and folders (a leading dot) are no part of the pool. Folders behind links are not entered.

    Raises:
        UnreadablePoolError: a folder cannot be listed.
    """
    slices: list[tuple[_File, ...]] = []
    current: list[_File] = []
    for file in sorted(_files(root), key=lambda file: file.id):
        current.append(file)
        if zlib.crc32(file.id.encode()) % _MEAN_SLICE_ROWS == 0 or len(current) == _MAX_SLICE_ROWS:
            slices.append(tuple(current))
            current = []
    if current:
        slices.append(tuple(current))
    return Pool([FolderShard(root, files, roots, limits) for files in slices])


def holds_image(root: Path) -> bool:
    """Whether some file in `root` or below is named as an image."""
    return any(is_image_name(file.id) for file in _files(root))


def is_image_name(name: str) -> bool:
    """Whether Pillow reads files with this name's suffix."""
    return Path(name).suffix.lower() in Image.registered_extensions()


def _files(root: Path) -> Iterator[_File]:
    for folder, subfolders, names in os.walk(root, onerror=_cannot_be_listed):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            name_bytes = os.fsencode(path.relative_to(root).as_posix())
            id_ = name_bytes.decode(errors="backslashreplace")
            is_utf8 = id_.encode() == name_bytes
            try:
                stamp = path.stat()
            except OSError:
                # Gone, or a dangling link: a row all the same, which reading will explain.
                yield _File(id_, is_utf8, -1, -1)
            else:
                yield _File(id_, is_utf8, stamp.st_size, stamp.st_mtime_ns)


def _cannot_be_listed(error: OSError) -> NoReturn:
    # Left out in silence, its images would be missing from the accounts.
    raise UnreadablePoolError(
        f"{error.filename} cannot be listed: {error.strerror}",
        reason="POOL_UNREADABLE",
        folder=error.filename,
    ) from error
