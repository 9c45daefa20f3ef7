"""Reading one image file of a pool."""

from __future__ import annotations

import stat

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools.pool import Unreadable
from topb_scorer.pools.roots import AllowedRoots


def read_image_file(path: str, roots: AllowedRoots, limits: ImageLimits) -> bytes | Unreadable:
    """The bytes of the file at `path`, or why they cannot be had."""
    try:
        resolved = roots.path_of(path)
    except (AccessDeniedError, InvalidRequestError) as error:
        return Unreadable("FILE_NOT_ALLOWED", str(error))
    try:
        status = resolved.stat()
        if not stat.S_ISREG(status.st_mode):
            # A pipe would wait for a writer, and a device may never end.
            return Unreadable("FILE_UNREADABLE", f"{path} is no regular file")
        size = status.st_size
        if size > limits.max_bytes:
            return Unreadable("IMAGE_TOO_LARGE", f"{path}: {size} bytes; at most {limits.max_bytes} are read")
        return resolved.read_bytes()
    except FileNotFoundError:
        return Unreadable("FILE_MISSING", f"{path} is not there")
    except OSError as error:
        return Unreadable("FILE_UNREADABLE", f"{path}: {error.strerror}")
