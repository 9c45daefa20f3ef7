"""Read files and folders on this machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
from pyarrow import fs

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.storage.addresses import LocalAddress
from topb_scorer.pools.storage.location import READ_ERRORS, WILDCARD, FoundFile, unreadable_pool
from topb_scorer.pools.storage.roots import AllowedRoots


@dataclass(frozen=True)
class LocalLocation:
    """An absolute path on this machine with its links resolved. Implements `Location`."""

    address: LocalAddress
    roots: AllowedRoots

    is_remote = False

    def __str__(self) -> str:
        return str(self.address)

    @property
    def _path(self) -> Path:
        return self.address.path

    def child(self, id_: str) -> LocalLocation:
        child = LocalAddress(self._path / id_)
        return LocalLocation(self.roots.check(child, str(child)), self.roots)

    def kind(self) -> fs.FileType:
        try:
            is_folder = stat.S_ISDIR(self._path.stat().st_mode)
        except FileNotFoundError:
            return fs.FileType.NotFound
        except READ_ERRORS as error:
            raise unreadable_pool(self, error) from error
        return fs.FileType.Directory if is_folder else fs.FileType.File

    def files_below(self, *, deep: bool = True) -> Iterator[FoundFile]:
        for folder, subfolders, names in os.walk(self._path, onerror=_cannot_be_listed):
            subfolders[:] = [name for name in subfolders if deep and not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    yield _found_file(Path(folder, name), self._path)

    def split_glob(self) -> tuple[LocalLocation, tuple[str, ...]] | None:
        parts = self._path.parts
        for i, part in enumerate(parts):
            is_pattern = WILDCARD.search(part) is not None
            if is_pattern and self._at(Path(*parts[: i + 1])).kind() == fs.FileType.NotFound:
                return self._at(Path(*parts[:i])), parts[i:]
        return None

    def stamp(self) -> tuple[int, str]:
        status = self._path.stat()
        return status.st_size, str(status.st_mtime_ns)

    @contextmanager
    def open(self) -> Iterator[pa.NativeFile]:
        if not stat.S_ISREG(self._path.stat().st_mode):
            # Reading a pipe would wait for a writer, and a device may never end.
            raise OSError(errno.EINVAL, "not a regular file", str(self))
        with pa.OSFile(str(self)) as file:
            yield file

    def _at(self, path: Path) -> LocalLocation:
        return LocalLocation(LocalAddress(path), self.roots)


def _found_file(path: Path, folder: Path) -> FoundFile:
    name_bytes = os.fsencode(path.relative_to(folder).as_posix())
    id_ = name_bytes.decode(errors="backslashreplace")
    is_utf8 = id_.encode() == name_bytes
    try:
        status = path.stat()
    except OSError:
        # The file still counts as a row: reading it reports the reason.
        return FoundFile(id_, is_utf8, -1, -1)
    return FoundFile(id_, is_utf8, status.st_size, status.st_mtime_ns)


def _cannot_be_listed(error: OSError) -> NoReturn:
    # If the folder were left out, its images would be missing from the accounts.
    raise UnreadablePoolError(
        f"{error.filename} cannot be listed: {error.strerror}",
        reason="POOL_UNREADABLE",
        folder=error.filename,
    ) from error
