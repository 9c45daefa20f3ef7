"""Define locations: files and folders that can be listed and read in the same way on every store.

An *address* is a parsed path or URI, a plain value. A *location* is an address that the allowed roots permit,
with the means to read it. `local` and `s3` implement the protocol; `web` only fetches images.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.storage.addresses import StoredAddress

READ_ERRORS = (OSError, pa.ArrowException)
"""The exceptions that reading a file raises, on any store."""

WILDCARD = re.compile(r"[*?[]")
"""The characters that make a segment of a path a pattern."""


class ReadPattern(Enum):
    """A pattern of reading a file. Its value has two buffer sizes in bytes, for local and for remote files.

    A request to another machine takes tens of milliseconds, however little it reads.
    """

    THROUGH = (1 << 20, 8 << 20)
    """Reads most of the file from some position on."""
    SKIPPING = (1 << 13, 8 << 20)
    """Reads small pieces of the file. A large local buffer would also read the gaps between them."""
    SLICE = (1 << 20, 1 << 18)
    """Reads tens of kilobytes at one position."""


@dataclass(frozen=True, slots=True, order=True)
class FoundFile:
    """A file that was found by listing a folder. Files are ordered by id."""

    id: str
    """The path relative to the listed folder, with `/`. Bytes that are not UTF-8 are escaped; an id with
    escapes cannot be used to open the file."""
    is_utf8: bool
    size: int
    """The size in bytes; -1 if the file is gone or is a dangling link."""
    modified_ns: int


class Location(Protocol):
    """A file or folder on this machine or on S3. `str(location)` is its canonical path or URI."""

    @property
    def address(self) -> StoredAddress:
        """The address of the location."""

    @property
    def is_remote(self) -> bool:
        """Whether reads wait for another machine. If so, it pays to read ahead in parallel."""

    def child(self, id_: str) -> Location:
        """Return the file that a listing of this folder found under `id_`.

        Raises:
            AccessDeniedError: the file is a link that leads outside the allowed roots.
            InvalidRequestError: the file is a link that cannot be resolved.
        """

    def kind(self) -> fs.FileType:
        """Return whether there is a file, a folder (`Directory`) or nothing (`NotFound`).

        Raises:
            UnreadablePoolError: the store does not answer or refuses access.
        """

    def files_below(self, *, deep: bool = True) -> Iterator[FoundFile]:
        """List the files in this folder and, if `deep`, in the folders below it.

        Hidden files and folders, whose names begin with a dot, are left out. Links to folders are not
        followed.

        Raises:
            UnreadablePoolError: a folder cannot be listed.
        """

    def split_glob(self) -> tuple[Location, tuple[str, ...]] | None:
        """Return the folder above the first pattern, and the segments from there on; None without a pattern.

        A segment is a pattern if it contains a wildcard and no file or folder has its literal name.
        """

    def stamp(self) -> tuple[int, str]:
        """Return the size in bytes and the modification time or ETag, which change with the contents.

        Raises:
            OSError: the file cannot be read. Other types in `READ_ERRORS` are raised too.
        """

    def open(self) -> AbstractContextManager[pa.NativeFile]:
        """Open the file for random access, unbuffered.

        Raises:
            OSError: there is no regular file. Other types in `READ_ERRORS` are raised too.
        """


def read_image(location: Location, max_bytes: int) -> bytes | Unreadable:
    """Return the bytes of an image file, or the reason why they cannot be read.

    Raises:
        UnreadablePoolError: a remote store failed. The fault may affect all rows, not only this image.
    """
    try:
        with location.open() as file:
            if file.size() > max_bytes:
                return too_large(location, file.size(), max_bytes)
            content: bytes = file.read()
            return content
    except FileNotFoundError:
        return Unreadable("FILE_MISSING", f"{location} does not exist")
    except READ_ERRORS as error:
        failure = unreadable_pool(location, error)
        if location.is_remote:
            # If such rows were skipped, an outage would be logged as a pool of broken images.
            raise failure from error
        return Unreadable("FILE_UNREADABLE", str(failure))


def buffer_bytes(location: Location, pattern: ReadPattern) -> int:
    """Return the size of the buffer for reading a file, in bytes."""
    local, remote = pattern.value
    return remote if location.is_remote else local


@contextmanager
def open_buffered(location: Location, pattern: ReadPattern) -> Iterator[io.BufferedReader]:
    """Open the file as a buffered Python file."""
    with location.open() as file:
        yield io.BufferedReader(file, buffer_bytes(location, pattern))


def too_large(name: object, size: int, max_bytes: int) -> Unreadable:
    """Return the reason to skip a file of `size` bytes."""
    return Unreadable("IMAGE_TOO_LARGE", f"{name} has {size} bytes; the limit is {max_bytes}")


def unreadable_pool(location: object, error: BaseException) -> UnreadablePoolError:
    """Return the error to raise if `location` cannot be read."""
    detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadablePoolError(
        f"{location} cannot be read: {detail}", reason="POOL_UNREADABLE", location=location
    )


def unreadable_file(file: Location, format: str, fault: object) -> UnreadablePoolError:
    """Return the error to raise if `file` cannot be read as `format`."""
    return UnreadablePoolError(
        f"{file} cannot be read as {format}: {fault}", reason="POOL_UNREADABLE", file=file
    )
