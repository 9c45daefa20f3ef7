"""Turn paths and URIs into locations, and check that they may be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.imaging import DEFAULT_LIMITS, ImageLimits
from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.storage.addresses import (
    LocalAddress,
    S3Address,
    StoredAddress,
    WebAddress,
    parse_address,
)
from topb_scorer.pools.storage.local import LocalLocation
from topb_scorer.pools.storage.location import Location, read_image
from topb_scorer.pools.storage.roots import AllowedRoots
from topb_scorer.pools.storage.s3 import S3Location, S3Store
from topb_scorer.pools.storage.web import WebStore


@dataclass(frozen=True)
class Stores:
    """The stores of pools and images, limited to the allowed roots. Threads can share an instance."""

    roots: AllowedRoots
    limits: ImageLimits = DEFAULT_LIMITS

    @cached_property
    def _s3(self) -> S3Store:
        return S3Store()

    @cached_property
    def _web(self) -> WebStore:
        return WebStore(self.roots, self.limits.max_bytes)

    def location(self, uri: str) -> Location:
        """Return the file or folder at a path, a file:// URI or an s3:// URI.

        Raises:
            InvalidRequestError: `uri` is none of these.
            AccessDeniedError: `uri` is outside the allowed roots.
        """
        address = self.roots.allowed_address(uri)
        if isinstance(address, WebAddress):
            raise InvalidRequestError(
                f"{address}: pools cannot be read over http; give a path or an s3:// URI, for example of a "
                "list of http URLs",
                reason="POOL_URI",
                uri=address,
            )
        return self._stored(address)

    def read_image(self, uri: str, file: Location) -> bytes | Unreadable:
        """Return the bytes of an image, or the reason why they cannot be read.

        Args:
            uri: a path, relative to the folder of `file` or absolute, or a file://, s3://, http:// or https://
                URI.
            file: the list that contains `uri`.

        Raises:
            UnreadablePoolError: S3 does not answer or refuses the credentials.
        """
        try:
            address = self.roots.allowed_address(uri, file.address)
        except (AccessDeniedError, InvalidRequestError) as error:
            return Unreadable("FILE_NOT_ALLOWED", str(error))
        if isinstance(address, WebAddress):
            return self._web.fetch(address.url)
        return read_image(self._stored(address), self.limits.max_bytes)

    def is_remote(self, uri: str, file: Location) -> bool:
        """Return whether `read_image` waits for another machine. Only the text of `uri` is examined."""
        if "://" in uri:
            return not uri[:7].lower().startswith("file://")
        return file.is_remote and not uri.startswith("/")

    def digest_of_local_images(self, uris: Iterable[str | None], file: Location) -> str:
        """Return a digest of the sizes and modification times of the images that are on this machine.

        The digest is part of shard identities. Links are not followed, and no other machine is contacted.
        """
        digest = hashlib.sha256()
        for uri in uris:
            digest.update(f"{_local_stamp(uri, file) if uri else ''}\n".encode())
        return digest.hexdigest()

    def _stored(self, address: StoredAddress) -> Location:
        if isinstance(address, S3Address):
            return S3Location(address, self._s3)
        return LocalLocation(address, self.roots)


def _local_stamp(uri: str, file: Location) -> str:
    try:
        address = parse_address(uri, file.address)
        if not isinstance(address, LocalAddress):
            return ""
        status = os.stat(address.path)  # noqa: PTH116 - called once per row
    except (InvalidRequestError, OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
