"""Keep decoded images in a temporary file that is mapped into memory, so that a set may exceed the memory.

The operating system keeps as much of the file in memory as there is room for, and reads the rest again when
it is needed. The file has no name, so it disappears with the process, even if the process is killed. The
environment variable TMPDIR names its directory.
"""

from __future__ import annotations

import contextlib
import errno
import math
import tempfile
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from topb_trainer.errors import InvalidDataError

_COPIED_ROWS = 256


class RowFile:
    """Rows of one shape, which are written one after the other and mapped in the end.

    It is a context manager, which closes the file. What was mapped stays.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(prefix="topb-images-")  # noqa: SIM115
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What a full disk refused to take is refused once more.
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows (n, …), or one row, to the end of the file.

        Raises:
            InvalidDataError: the file system is full.
        """
        try:
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)
            self._file.flush()
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise InvalidDataError(
                f"{tempfile.gettempdir()} has no room for the decoded images ({error.strerror} after "
                f"{self._rows} of {math.prod(self._shape) * self._dtype.itemsize} bytes each); "
                "set TMPDIR to a directory with more room",
                reason="TEMPORARY_DIRECTORY_FULL",
            ) from error
        self._rows += rows.size // math.prod(self._shape)

    def mapped(self) -> NDArray[Any]:
        """Return the rows (N, …)."""
        if not self._rows:  # An empty file cannot be mapped.
            return np.empty((0, *self._shape), self._dtype)
        # A shared mapping: Linux refuses a private writable one that is larger than the memory.
        return np.asarray(np.memmap(self._file, self._dtype, "r+", shape=(self._rows, *self._shape)))


class ImageFile(RowFile):
    """Images of one size, uint8 (N, height, width, 3)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__((height, width, 3), np.uint8)


def mapped_rows(images: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return a mapped copy of images or features (N, …): those in these rows (M), as (M, …)."""
    with RowFile(images.shape[1:], images.dtype) as copied:
        for start in range(0, len(rows), _COPIED_ROWS):
            copied.append(images[rows[start : start + _COPIED_ROWS]])
        return copied.mapped()
