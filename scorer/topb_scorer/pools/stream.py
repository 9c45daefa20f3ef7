"""Receive pools that callers stream in chunks. Each chunk is a shard."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import SelectionCancelledError
from topb_scorer.pools.pool import PoolItem, Shard, Unreadable
from topb_scorer.pools.vectors import GivenNumbers, VectorLayout, VectorRows, checked_rows

_IDLE_SECONDS = 0.02
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ChunkShard:
    """The images of one chunk."""

    seq: int
    ids: Sequence[str]
    images: NDArray[np.uint8] | Sequence[bytes]
    """uint8 (n, h, w, 3), or n encoded images."""

    @property
    def identity(self) -> str:
        return _identity(self.seq)

    @property
    def rows(self) -> int:
        return len(self.ids)

    def items(self) -> Iterator[PoolItem]:
        """Yield the chunk's images. An image without an id is an unreadable row."""
        for row, (id_, image) in enumerate(zip(self.ids, self.images, strict=True)):
            if id_:
                yield PoolItem(id_, image)
            else:
                where = f"{self.seq}:{row}"
                yield PoolItem(where, Unreadable("ID_MISSING", f"image {row} of chunk {self.seq} has no id"))


@dataclass(frozen=True)
class VectorChunkShard:
    """The vectors of one chunk."""

    seq: int
    ids: Sequence[str]
    vectors: NDArray[np.float32]
    """float32 (n, D)."""
    probabilities: NDArray[np.float32]
    """float32 (n, C); (n, 0) if the chunk has none."""

    @property
    def identity(self) -> str:
        return _identity(self.seq)

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def layout(self) -> VectorLayout:
        return VectorLayout(self.vectors.shape[1], self.probabilities.shape[1])

    def blocks(self, *, with_probabilities: bool) -> Iterator[VectorRows]:
        yield checked_rows(
            self.ids,
            GivenNumbers(self.vectors, {}),
            GivenNumbers(self.probabilities, {}) if with_probabilities else None,
            lambda row: f"{self.seq}:{row}",
        )


def chunks_without_a_gap(identities: Sequence[str]) -> int:
    """Return how many chunks from the start of the stream are present without a gap.

    Args:
        identities: the identities of the chunks that are present, sorted.
    """
    return next((seq for seq, held in enumerate(identities) if held != _identity(seq)), len(identities))


class ChunkQueue:
    """A bounded queue of chunks between the thread that receives them and the thread that scores them."""

    def __init__(self, capacity: int, cancelled: threading.Event) -> None:
        self._chunks: queue.Queue[Shard | None] = queue.Queue(capacity)
        self._cancelled = cancelled

    def put(self, chunk: Shard | None) -> None:
        """Add a chunk, waiting for room if the queue is full. None ends the stream.

        Raises:
            SelectionCancelledError: the selection was cancelled in the meantime.
        """
        while not self._cancelled.is_set():
            try:
                self._chunks.put(chunk, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        raise SelectionCancelledError

    def shards(self) -> Iterator[Shard | None]:
        """Yield chunks as they arrive. `None` means that none is ready: run the partial batch now.

        Raises:
            SelectionCancelledError: the selection was cancelled in the meantime.
        """
        late = False
        while not self._cancelled.is_set():
            try:
                chunk = self._chunks.get(timeout=_POLL_SECONDS if late else _IDLE_SECONDS)
            except queue.Empty:
                late = True
                # Yielding at every poll lets the reader stop for reasons of its own.
                yield None
                continue
            if chunk is None:
                return
            late = False
            yield chunk
        raise SelectionCancelledError


def _identity(seq: int) -> str:
    return f"{seq:020d}"
