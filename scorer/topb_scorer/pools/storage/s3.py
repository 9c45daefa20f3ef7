"""Objects and prefixes on S3, or on another store that speaks its protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from pyarrow import fs

from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.storage.addresses import S3Address
from topb_scorer.pools.storage.location import (
    READ_ERRORS,
    FoundFile,
    Kind,
    ReadPattern,
    has_wildcard,
    is_hidden,
    too_large,
    unreadable_pool,
)

# A request takes some tens of milliseconds, however little it asks for.
_BUFFER_BYTES = 8 << 20
_SLICE_BUFFER_BYTES = 1 << 18
_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 30


@dataclass(frozen=True)
class S3Store:
    """The S3 client, created at first use; threads may share it."""

    max_bytes: int
    """The largest image file that is read."""

    @cached_property
    def filesystem(self) -> fs.S3FileSystem:
        """A client for the endpoint and credentials of the AWS environment and configuration files.

        pyarrow takes credentials and region from the AWS SDK, but does not read the endpoint variables.
        """
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(
            endpoint_override=endpoint or None,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
        )


@dataclass(frozen=True)
class S3Location:
    """An object or a prefix; implements `Location`. A prefix counts as a folder."""

    address: S3Address
    store: S3Store

    is_remote = True

    def __str__(self) -> str:
        return str(self.address)

    @property
    def name(self) -> str:
        """The last segment."""
        return self.address.path.rpartition("/")[2]

    @property
    def parent(self) -> S3Location:
        """The prefix that contains it."""
        return self._at(self.address.key.rpartition("/")[0])

    def child(self, id_: str) -> S3Location:
        """Return the object that was listed."""
        key = self.address.key
        return self._at(f"{key}/{id_}" if key else id_)

    def kind(self) -> Kind:
        """Return what is there."""
        try:
            found = self.store.filesystem.get_file_info(self.address.path).type
        except FileNotFoundError:
            return Kind.NOTHING
        except READ_ERRORS as error:
            raise unreadable_pool(self, error) from error
        return {fs.FileType.NotFound: Kind.NOTHING, fs.FileType.Directory: Kind.FOLDER}.get(found, Kind.FILE)

    def files_below(self, *, deep: bool = True) -> Iterator[FoundFile]:
        """List the objects below this prefix."""
        selector = fs.FileSelector(self.address.path, allow_not_found=True, recursive=deep)
        try:
            infos = self.store.filesystem.get_file_info(selector)
        except READ_ERRORS as error:
            raise unreadable_pool(self, error) from error
        start = len(self.address.path) + 1
        for info in infos:
            id_ = info.path[start:]
            if info.type == fs.FileType.File and not any(map(is_hidden, id_.split("/"))):
                yield FoundFile(id_, True, info.size, info.mtime_ns)

    def split_glob(self) -> tuple[S3Location, tuple[str, ...]] | None:
        """Split at the first segment with a wildcard, unless an object has the whole as its literal key."""
        segments = tuple(self.address.key.split("/"))
        first = next((i for i, segment in enumerate(segments) if has_wildcard(segment)), None)
        if first is None or self.kind() is not Kind.NOTHING:
            return None
        return self._at("/".join(segments[:first])), segments[first:]

    def stamp(self) -> tuple[int, str]:
        """Return size and ETag."""
        with self.open() as file:
            metadata = file.metadata()
            return file.size(), str(metadata.get("ETag") or metadata.get("Last-Modified"))

    @contextmanager
    def open(self) -> Iterator[pa.NativeFile]:
        """Open the object for random access."""
        with self.store.filesystem.open_input_file(self.address.path) as file:
            yield file

    def buffer_bytes(self, pattern: ReadPattern) -> int:
        """Return the buffer size."""
        return _SLICE_BUFFER_BYTES if pattern is ReadPattern.SLICE else _BUFFER_BYTES

    def read_image(self) -> bytes | Unreadable:
        """Read the object, if it is within the limit."""
        max_bytes = self.store.max_bytes
        try:
            with self.open() as file:
                if file.size() > max_bytes:
                    return too_large(self, file.size(), max_bytes)
                content: bytes = file.read()
                return content
        except FileNotFoundError:
            return Unreadable("FILE_MISSING", f"{self} does not exist")
        except READ_ERRORS as error:
            # If the row were skipped, an outage would be logged as a pool of broken images.
            raise unreadable_pool(self, error) from error

    def _at(self, key: str) -> S3Location:
        return S3Location(S3Address(self.address.bucket, key), self.store)
