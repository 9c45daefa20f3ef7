"""Finding and opening the files of a pool, on this machine or on S3."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
from pyarrow import fs

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools.locations import Place
from topb_scorer.pools.roots import AllowedRoots

READ_ERRORS = (OSError, pa.ArrowException)
"""What reading a file raises, here or on S3."""

LOCAL_BUFFER_BYTES = 1 << 20
# A request to S3 takes some tens of milliseconds, however little it asks for.
S3_BUFFER_BYTES = 8 << 20
_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 30


class Kind(Enum):
    """What stands at a location."""

    FILE = "file"
    FOLDER = "folder"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as it was listed."""

    id: str
    """Its path below the folder that was listed, with `/`; with escapes for bytes that are not UTF-8, which
    no id can hold: then it names no file."""
    is_utf8: bool
    size: int
    """Bytes; -1 where it was gone, or a dangling link."""
    modified_ns: int


@dataclass(frozen=True)
class Storage:
    """Reads what the roots allow, within the limits. May be used by several threads at once."""

    roots: AllowedRoots
    limits: ImageLimits

    @cached_property
    def s3(self) -> fs.S3FileSystem:
        """Where and as whom the AWS environment and configuration files say.

        pyarrow asks the AWS SDK for credentials and region; the endpoint variables it leaves unread.
        """
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(
            endpoint_override=endpoint or None,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
        )

    def kind_of(self, location: Place) -> Kind:
        """What stands there.

        Raises:
            UnreadablePoolError: that cannot be told.
        """
        try:
            if isinstance(location, Path):
                return Kind.FOLDER if stat.S_ISDIR(location.stat().st_mode) else Kind.FILE
            found = self.s3.get_file_info(location.path).type
        except FileNotFoundError:
            return Kind.NOTHING
        except READ_ERRORS as error:
            raise unreadable(location, error) from error
        return {fs.FileType.NotFound: Kind.NOTHING, fs.FileType.Directory: Kind.FOLDER}.get(found, Kind.FILE)

    def files_below(self, folder: Place, *, deep: bool = True) -> Iterator[FoundFile]:
        """The files in the folder and, if `deep`, in those below it.

        Hidden files and folders (a leading dot) are left out. Folders behind links are not entered.

        Raises:
            UnreadablePoolError: a folder cannot be listed.
        """
        if isinstance(folder, Path):
            yield from _local_files(folder, deep)
            return
        try:
            infos = self.s3.get_file_info(fs.FileSelector(folder.path, allow_not_found=True, recursive=deep))
        except READ_ERRORS as error:
            raise unreadable(folder, error) from error
        start = len(folder.path) + 1
        for info in infos:
            id_ = info.path[start:]
            if info.type == fs.FileType.File and not any(map(is_hidden, id_.split("/"))):
                yield FoundFile(id_, True, info.size, info.mtime_ns)

    def stamp_of(self, location: Place) -> tuple[int, str]:
        """Size and, of a local file, its time of modification, of an S3 object its ETag.

        Raises:
            OSError: it cannot be had.
        """
        if isinstance(location, Path):
            status = location.stat()
            return status.st_size, str(status.st_mtime_ns)
        with self.open(location) as file:
            metadata = file.metadata()
            tag = metadata.get("ETag") or metadata.get("Last-Modified")
            return file.size(), str(tag)

    @contextmanager
    def open(self, location: Place) -> Iterator[pa.NativeFile]:
        """The file, for reading at any place.

        Raises:
            OSError: it is not there, or no regular file.
        """
        if isinstance(location, Path):
            if not stat.S_ISREG(location.stat().st_mode):
                # A pipe would wait for a writer, and a device may never end.
                raise OSError(errno.EINVAL, "no regular file", str(location))
            file = pa.OSFile(str(location))
        else:
            file = self.s3.open_input_file(location.path)
        with file:
            yield file

    @contextmanager
    def open_buffered(
        self, location: Place, *, local_bytes: int = LOCAL_BUFFER_BYTES, s3_bytes: int = S3_BUFFER_BYTES
    ) -> Iterator[io.BufferedReader]:
        """The same as a Python file, of which so many bytes are read at a time."""
        with self.open(location) as file:
            yield io.BufferedReader(file, local_bytes if isinstance(location, Path) else s3_bytes)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a pool."""
    return name.startswith(".")


def unreadable(location: object, error: BaseException) -> UnreadablePoolError:
    """The error to raise where `location` cannot be read."""
    detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadablePoolError(
        f"{location} cannot be read: {detail}", reason="POOL_UNREADABLE", location=location
    )


def _local_files(root: Path, deep: bool) -> Iterator[FoundFile]:
    for folder, subfolders, names in os.walk(root, onerror=_cannot_be_listed):
        subfolders[:] = [name for name in subfolders if deep and not is_hidden(name)]
        for name in names:
            if is_hidden(name):
                continue
            path = Path(folder, name)
            name_bytes = os.fsencode(path.relative_to(root).as_posix())
            id_ = name_bytes.decode(errors="backslashreplace")
            is_utf8 = id_.encode() == name_bytes
            try:
                status = path.stat()
            except OSError:
                # Gone, or a dangling link: found all the same, and reading will explain.
                yield FoundFile(id_, is_utf8, -1, -1)
            else:
                yield FoundFile(id_, is_utf8, status.st_size, status.st_mtime_ns)


def _cannot_be_listed(error: OSError) -> NoReturn:
    # Left out in silence, its images would be missing from the accounts.
    raise UnreadablePoolError(
        f"{error.filename} cannot be listed: {error.strerror}",
        reason="POOL_UNREADABLE",
        folder=error.filename,
    ) from error
