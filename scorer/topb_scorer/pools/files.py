"""Reading one image file of a pool, wherever it stands."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.locations import Place, S3Path, local_path
from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.storage import READ_ERRORS, Storage, unreadable
from topb_scorer.pools.web import fetch


def read_image(uri: str, base: Place | None, storage: Storage) -> bytes | Unreadable:
    """The bytes of the file at a path, relative to `base`, or at a URI; or why they cannot be had.

    Raises:
        UnreadablePoolError: S3 does not answer, or refuses the credentials: no row's fault.
    """
    try:
        location = storage.roots.location_of(uri, base)
    except (AccessDeniedError, InvalidRequestError) as error:
        return Unreadable("FILE_NOT_ALLOWED", str(error))
    if isinstance(location, Path):
        return _read_local(uri, location, storage.limits.max_bytes)
    if isinstance(location, S3Path):
        return read_object(location, storage)
    return fetch(location, storage.roots.location_of, storage.limits.max_bytes)


def read_object(location: S3Path, storage: Storage) -> bytes | Unreadable:
    """The bytes of an object on S3, or why they cannot be had.

    Raises:
        UnreadablePoolError: S3 does not answer, or refuses the credentials.
    """
    max_bytes = storage.limits.max_bytes
    try:
        with storage.open(location) as file:
            if file.size() > max_bytes:
                return _too_large(str(location), file.size(), max_bytes)
            content: bytes = file.read()
            return content
    except FileNotFoundError:
        return Unreadable("FILE_MISSING", f"{location} is not there")
    except READ_ERRORS as error:
        # Were these rows skipped, an outage would be logged as a pool of broken images.
        raise unreadable(location, error) from error


def local_stamps(uris: Iterable[str | None], base: Place) -> str:
    """A digest of the sizes and times of modification of those files that stand on this machine."""
    digest = hashlib.sha256()
    for uri in uris:
        path = local_path(uri, base) if uri else None
        try:
            status = None if path is None else os.stat(path)  # noqa: PTH116 - a million times
        except (OSError, ValueError):
            status = None
        stamp = "" if status is None else f"{status.st_size} {status.st_mtime_ns}"
        digest.update(f"{stamp}\n".encode())
    return digest.hexdigest()


def _read_local(name: str, path: Path, max_bytes: int) -> bytes | Unreadable:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # A pipe would wait for a writer, and a device may never end.
            return Unreadable("FILE_UNREADABLE", f"{name} is no regular file")
        if status.st_size > max_bytes:
            return _too_large(name, status.st_size, max_bytes)
        return path.read_bytes()
    except FileNotFoundError:
        return Unreadable("FILE_MISSING", f"{name} is not there")
    except OSError as error:
        return Unreadable("FILE_UNREADABLE", f"{name}: {error.strerror}")


def _too_large(name: str, size: int, max_bytes: int) -> Unreadable:
    return Unreadable("IMAGE_TOO_LARGE", f"{name}: {size} bytes; at most {max_bytes} are read")
