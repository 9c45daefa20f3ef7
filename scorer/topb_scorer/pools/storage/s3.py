"""Read objects and prefixes on S3, or on another store with the same protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from pyarrow import fs

from topb_scorer.pools.storage.addresses import S3Address
from topb_scorer.pools.storage.location import READ_ERRORS, WILDCARD, FoundFile, unreadable_pool

_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 30


@dataclass(frozen=True)
class S3Store:
    """The S3 client. It is created at first use and can be shared between threads."""

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
    """An object or a prefix on S3. Implements `Location`; a prefix counts as a folder."""

    address: S3Address
    store: S3Store

    is_remote = True

    def __str__(self) -> str:
        return str(self.address)

    def child(self, id_: str) -> S3Location:
        key = self.address.key
        return self._at(f"{key}/{id_}" if key else id_)

    def kind(self) -> fs.FileType:
        try:
            return self.store.filesystem.get_file_info(self.address.path).type
        except FileNotFoundError:
            return fs.FileType.NotFound
        except READ_ERRORS as error:
            raise unreadable_pool(self, error) from error

    def files_below(self, *, deep: bool = True) -> Iterator[FoundFile]:
        selector = fs.FileSelector(self.address.path, allow_not_found=True, recursive=deep)
        try:
            infos = self.store.filesystem.get_file_info(selector)
        except READ_ERRORS as error:
            raise unreadable_pool(self, error) from error
        start = len(self.address.path) + 1
        for info in infos:
            id_ = info.path[start:]
            if info.type == fs.FileType.File and "/." not in f"/{id_}":
                yield FoundFile(id_, True, info.size, info.mtime_ns)

    def split_glob(self) -> tuple[S3Location, tuple[str, ...]] | None:
        segments = tuple(self.address.key.split("/"))
        first = next((i for i, segment in enumerate(segments) if WILDCARD.search(segment)), None)
        if first is None or self.kind() != fs.FileType.NotFound:
            return None
        return self._at("/".join(segments[:first])), segments[first:]

    def stamp(self) -> tuple[int, str]:
        with self.open() as file:
            metadata = file.metadata()
            return file.size(), str(metadata.get("ETag") or metadata.get("Last-Modified"))

    @contextmanager
    def open(self) -> Iterator[pa.NativeFile]:
        with self.store.filesystem.open_input_file(self.address.path) as file:
            yield file

    def _at(self, key: str) -> S3Location:
        return S3Location(S3Address(self.address.bucket, key), self.store)
