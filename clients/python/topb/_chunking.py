"""Check the caller's rows and gather them into chunks of about 2 MiB."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topb._requests import EXPECTED_ROWS, image_id
from topb.errors import InvalidRequestError, LimitExceededError
from topb.v1 import selection_pb2

# gRPC in Python has a high cost per message, and its highest throughput with messages of 1–4 MiB.
TARGET_CHUNK_BYTES = 2 * 2**20
_ID_OVERHEAD_BYTES = 4


@dataclass(frozen=True)
class VectorSizes:
    """The number of elements of a vector, and of the probabilities beside it; 0 without any."""

    width: int
    classes: int

    def __str__(self) -> str:
        """Return the sizes in words."""
        probabilities = f" and {self.classes} probabilities" if self.classes else ""
        return f"a vector of {self.width} numbers{probabilities}"


# Rows of one kind may share a chunk: arrays of one (height, width), vectors of one size, or encoded images of
# any size (None).
_Kind = tuple[int, int] | VectorSizes | None


class Chunker:
    """Gathers the rows of a pool into requests of one chunk each.

    Rows are copied, so the caller may reuse its buffer for the next image. At most one chunk and one row are
    held in memory.

    Attributes:
        chunks: Number of chunks that are complete.
        rows: Number of rows that were added.
    """

    def __init__(self, *, max_chunk_bytes: int, max_chunk_rows: int = 0, max_id_bytes: int = 0) -> None:
        """Create a chunker that has no rows yet.

        Args:
            max_chunk_bytes: Largest number of bytes of images or vectors in a chunk.
            max_chunk_rows: Largest number of rows in a chunk; 0 for no limit.
            max_id_bytes: Largest id in bytes of UTF-8; 0 for no limit.
        """
        self._max_chunk_bytes = max_chunk_bytes
        self._max_chunk_rows = max_chunk_rows or sys.maxsize
        self._max_id_bytes = max_id_bytes or sys.maxsize
        self._target_bytes = min(TARGET_CHUNK_BYTES, max_chunk_bytes)
        self._kind: _Kind = None
        self._ids: list[str] = []
        self._images: list[bytes] = []
        self._probabilities: list[bytes] = []
        self._bytes = 0
        self.chunks = 0
        self.rows = 0

    def add(self, row: object) -> selection_pb2.SelectBatchFromStreamRequest | None:
        """Add a row. Return the previous chunk if the row starts a new one, and None otherwise.

        Raises:
            InvalidRequestError: If the row is invalid.
            LimitExceededError: If the row alone exceeds the size limit of a chunk, or the id is too long.
        """
        where = f"row {self.rows} of the pool"
        given_id, image, given_probabilities = _parts(row, where=where)
        row_id = image_id(given_id, where=where)
        id_bytes = len(row_id.encode())
        if id_bytes > self._max_id_bytes:
            raise LimitExceededError(
                f"the id of {where} has {id_bytes} bytes, more than the {self._max_id_bytes} that the server "
                f"accepts. It begins with {row_id[:64]!r}",
                reason="ID_TOO_LONG",
                metadata={"bytes": f"{id_bytes}", "max_id_bytes": f"{self._max_id_bytes}"},
            )
        data, probabilities, kind = _row_data(image, given_probabilities, where=f"{where} (id {row_id!r})")
        row_bytes = len(data) + len(probabilities)
        if row_bytes > self._max_chunk_bytes:
            limit = self._max_chunk_bytes
            is_vector = isinstance(kind, VectorSizes)
            raise LimitExceededError(
                f"the {'vector' if is_vector else 'image'} of {where} (id {row_id!r}) has {row_bytes} bytes, "
                f"more than the {limit} that the server accepts in one chunk",
                reason="VECTOR_TOO_LARGE" if is_vector else "IMAGE_TOO_LARGE",
                metadata={"id": row_id, "bytes": f"{row_bytes}", "max_chunk_bytes": f"{limit}"},
            )
        size = row_bytes + id_bytes + _ID_OVERHEAD_BYTES
        is_full = self._bytes + size > self._target_bytes or len(self._ids) >= self._max_chunk_rows
        closed = None
        if self._ids and (kind != self._kind or is_full):
            closed = self.close()
        self._kind = kind
        self._ids.append(row_id)
        self._images.append(data)
        self._probabilities.append(probabilities)
        self._bytes += size
        self.rows += 1
        return closed

    def close(self) -> selection_pb2.SelectBatchFromStreamRequest | None:
        """Return the chunk of the rows gathered so far, or None if there are none."""
        if not self._ids:
            return None
        # Filled in place, because assigning a finished message to a field copies its bytes again.
        request = selection_pb2.SelectBatchFromStreamRequest()
        chunk = request.chunk
        chunk.seq = self.chunks
        chunk.ids.extend(self._ids)
        chunk.crc32 = _crc32([*self._images, *self._probabilities])
        if isinstance(self._kind, VectorSizes):
            chunk.vectors.width, chunk.vectors.classes = self._kind.width, self._kind.classes
            chunk.vectors.data = b"".join(self._images)
            chunk.vectors.probabilities = b"".join(self._probabilities)
        elif self._kind is None:
            chunk.encoded.data.extend(self._images)
        else:
            chunk.packed.height, chunk.packed.width = self._kind
            chunk.packed.data = b"".join(self._images)
        self._ids, self._images, self._probabilities, self._bytes = [], [], [], 0
        self.chunks += 1
        return request


def sizes_of(row: object) -> VectorSizes | None:
    """Return the sizes of the first row of a pool, or None if it has an image.

    Raises:
        InvalidRequestError: If the row is invalid.
    """
    _, image, probabilities = _parts(row, where="row 0 of the pool")
    kind = _row_data(image, probabilities, where="row 0 of the pool")[2]
    return kind if isinstance(kind, VectorSizes) else None


def _parts(row: object, *, where: str) -> tuple[object, object, object | None]:
    if isinstance(row, (tuple, list)) and len(row) in (2, 3):
        return row[0], row[1], row[2] if len(row) == 3 else None
    described = type(row).__name__ + (f" of {len(row)}" if isinstance(row, (tuple, list)) else "")
    raise InvalidRequestError(
        f"{where} is a {described}; expected {EXPECTED_ROWS}",
        reason="POOL_ROW_INVALID",
    )


def _row_data(image: object, probabilities: object | None, *, where: str) -> tuple[bytes, bytes, _Kind]:
    """Return the bytes of an image or a vector, those of the probabilities, and the kind of the row."""
    if isinstance(image, np.ndarray) and image.ndim == 1 and image.size and image.dtype.kind == "f":
        beside = b"" if probabilities is None else _float32_bytes(probabilities, where=where)
        return _float32_bytes(image, where=where), beside, VectorSizes(image.size, len(beside) // 4)
    if probabilities is not None:
        raise InvalidRequestError(
            f"{where} is a tuple of 3 without a vector; expected {EXPECTED_ROWS}", reason="POOL_ROW_INVALID"
        )
    data, size = _image_data(image, where=where)
    return data, b"", size


def _float32_bytes(values: object, *, where: str) -> bytes:
    if not isinstance(values, np.ndarray) or values.ndim != 1 or not values.size or values.dtype.kind != "f":
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InvalidRequestError(
            f"the probabilities of {where} are {found}; expected an array of floating-point numbers (C,)",
            reason="POOL_ROW_INVALID",
        )
    # The server skips numbers that are not finite, also those beyond the range of float32.
    with np.errstate(over="ignore"):
        return values.astype("<f4").tobytes()


def _image_data(image: object, *, where: str) -> tuple[bytes, tuple[int, int] | None]:
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image), None
    if not isinstance(image, np.ndarray):
        raise InvalidRequestError(
            f"the image of {where} is a {type(image).__name__}; expected encoded bytes, a uint8 array "
            "(height, width, 3) or a vector, an array of floating-point numbers (D,)",
            reason="POOL_ROW_INVALID",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidRequestError(
            f"the image of {where} is an array {image.dtype} {image.shape}; "
            "expected uint8 (height, width, 3), RGB, or a vector of floating-point numbers (D,)",
            reason="POOL_ROW_INVALID",
        )
    return image.tobytes(), (image.shape[0], image.shape[1])


def _crc32(images: Sequence[bytes]) -> int:
    checksum = 0
    for image in images:
        checksum = zlib.crc32(image, checksum)
    return checksum
