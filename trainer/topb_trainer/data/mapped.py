"""Keep decoded images in a temporary file that is mapped into memory, so that a set may exceed the memory.

The operating system keeps as much of the file in memory as there is room for, and reads the rest again when
it is needed. The file has no name, so it disappears with the process, even if the process is killed. The
environment variable TMPDIR names its directory.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from typing import Self

import numpy as np
from numpy.typing import NDArray

from topb_trainer.errors import InvalidDataError

_COPIED_ROWS = 256


class ImageFile:
    """Images of one size, which are written one after the other and mapped in the end.

    It is a context manager, which closes the file. What was mapped stays.
    """

    def __init__(self, height: int, width: int) -> None:
        self._shape = (height, width, 3)
        self._file = tempfile.TemporaryFile(prefix="topb-images-")  # noqa: SIM115
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What a full disk refused to take is refused once more.
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, images: NDArray[np.uint8]) -> None:
        """Write uint8 images (n, H, W, 3), or one image (H, W, 3), to the end of the file.

        Raises:
            InvalidDataError: the file system is full.
        """
        try:
            self._file.write(np.ascontiguousarray(images).data)
            self._file.flush()
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise InvalidDataError(
                f"{tempfile.gettempdir()} has no room for the decoded images ({error.strerror} after "
                f"{self._rows} of {np.prod(self._shape)} bytes each); "
                "set TMPDIR to a directory with more room",
                reason="TEMPORARY_DIRECTORY_FULL",
            ) from error
        self._rows += images.size // int(np.prod(self._shape))

    def mapped(self) -> NDArray[np.uint8]:
        """Return the images, uint8 (N, H, W, 3)."""
        if not self._rows:  # An empty file cannot be mapped.
            return np.empty((0, *self._shape), np.uint8)
        # A shared mapping: Linux refuses a private writable one that is larger than the memory.
        return np.asarray(np.memmap(self._file, np.uint8, "r+", shape=(self._rows, *self._shape)))


def mapped_rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a mapped copy of images (N, H, W, 3): uint8 (M, H, W, 3), those in these rows (M)."""
    height, width = images.shape[1:3]
    with ImageFile(height, width) as copied:
        for start in range(0, len(rows), _COPIED_ROWS):
            copied.append(images[rows[start : start + _COPIED_ROWS]])
        return copied.mapped()
