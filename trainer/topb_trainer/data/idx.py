"""Read IDX files, plain or gzipped. Fashion-MNIST is published in this format.

A file holds two zero bytes, the type (8 is unsigned byte), the number of dimensions, their sizes as
big-endian 32-bit integers, and the values (LeCun's MNIST page). torchvision's reader cannot read gzipped
files, and fails on a damaged file with an assertion that has no message.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb_trainer.errors import InvalidDataError

_UNSIGNED_BYTE = 8


def idx_file(root: Path, name: str) -> Path | None:
    """Return the file `name` or `name`.gz in `root` or in torchvision's folder there, or None."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    return None


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Return the values of an IDX file of unsigned bytes, in the shape that it declares.

    Raises:
        InvalidDataError: the file is not an IDX file of unsigned bytes, or it is incomplete.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(file, str(error)) from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise _unreadable(file, "it does not start like an IDX file of unsigned bytes")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise _unreadable(file, "it ends within its header")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != int(np.prod(shape)):
        raise _unreadable(file, f"it holds {len(values)} values, but declares the shape {shape}")
    return values.reshape(shape)


def _unreadable(file: Path, why: str) -> InvalidDataError:
    return InvalidDataError(f"{file} cannot be read: {why}", reason="IDX_UNREADABLE", file=file)
