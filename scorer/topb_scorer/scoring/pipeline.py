"""Read images, decode them, run the encoder, and yield its outputs, all in one loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer import imaging
from topb_scorer.cancellation import Check, check_of, checked
from topb_scorer.imaging import ImageLimits, PixelBudget, SkippedImageError
from topb_scorer.pools.pool import DIGEST_BYTES, ImageShard, PoolItem, Unreadable, content_digest
from topb_scorer.scoring.batches import Batch, batches, read_ahead
from topb_scorer.scoring.encoded_rows import EncodedRows, Skip
from topb_scorer.scoring.session import Buffers, GraphSession

_BATCHES_READ_AHEAD = 4
_BATCHES_IN_FLIGHT = 3
_DECODE_TASKS_PER_BATCH = 8

_Load = Callable[[bytes | NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class _InFlight:
    """A batch whose images are being decoded into its buffers."""

    batch: Batch
    digests: NDArray[np.uint8]
    """uint8 (n, 16): the content digests of the images or vectors."""
    buffers: Buffers
    decoding: list[Future[dict[int, Skip]]]


def encode_shards(
    shards: Iterable[ImageShard | None],
    encoder: GraphSession,
    target: ImageInput,
    *,
    limits: ImageLimits,
    budget: PixelBudget | None = None,
    decode_threads: int,
    cancelled: threading.Event,
) -> Generator[EncodedRows, None, None]:
    """Encode all items of `shards`, in order, in full batches that span shards.

    One thread reads ahead, `decode_threads` threads decode, and the caller's thread runs the encoder. Only a
    few batches are in memory at a time. Closing the generator stops all threads.

    Args:
        shards: the shards, which are read in this order. None means that no shard is ready: the partial batch
            is run now.
        encoder: takes `images`, uint8 (N, height, width, 3), RGB.
        target: the size and the resize rule of the images that the encoder takes.
        limits: size limits of images. Larger images are skipped.
        budget: limits the pixels that are decoded at once; None for no limit.
        decode_threads: the number of decoding threads, at least 1.
        cancelled: checked before each batch and each image.

    Raises:
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end.
    """
    check = check_of(cancelled)
    load = partial(imaging.load, target=target, limits=limits, budget=budget, check=check)
    free = deque(encoder.new_buffers() for _ in range(_BATCHES_IN_FLIGHT))
    in_flight: deque[_InFlight] = deque()
    with (
        ThreadPoolExecutor(decode_threads, thread_name_prefix="decode") as decoders,
        closing(read_ahead(batches(shards, encoder.batch_size), _BATCHES_READ_AHEAD)) as ready,
    ):
        try:
            for batch in ready:
                check()
                # Run the oldest batch to free its buffers, or because no further batch is ready.
                while in_flight and (batch is None or not free):
                    check()
                    oldest = in_flight.popleft()
                    yield from _encoded(encoder, oldest)
                    free.append(oldest.buffers)
                if batch is not None:
                    buffers = free.popleft()
                    digests = np.zeros((len(batch.items), DIGEST_BYTES), np.uint8)
                    decoding = _decode(decoders, batch, digests, buffers, load, check)
                    in_flight.append(_InFlight(batch, digests, buffers, decoding))
        finally:
            for abandoned in in_flight:
                for future in abandoned.decoding:
                    future.cancel()


def _decode(
    decoders: ThreadPoolExecutor,
    batch: Batch,
    digests: NDArray[np.uint8],
    buffers: Buffers,
    load: _Load,
    check: Check,
) -> list[Future[dict[int, Skip]]]:
    """Start tasks that each digest and decode a few rows of a batch, and return the rows they skip."""
    count = max(1, -(-len(batch.items) // _DECODE_TASKS_PER_BATCH))
    images = buffers.inputs["images"]
    return [
        decoders.submit(_decode_rows, batch.items, digests, images, start, count, load, check)
        for start in range(0, len(batch.items), count)
    ]


def _decode_rows(
    items: list[PoolItem],
    digests: NDArray[np.uint8],
    images: NDArray[np.uint8],
    start: int,
    count: int,
    load: _Load,
    check: Check,
) -> dict[int, Skip]:
    skips: dict[int, Skip] = {}
    computed: list[bytes] = []
    for row, item in enumerate(checked(items[start : start + count], check), start):
        computed.append(content_digest(item.image))
        if isinstance(item.image, Unreadable):
            skips[row] = Skip(item.image.reason, item.image.detail)
            continue
        try:
            images[row] = load(item.image)
        except SkippedImageError as error:
            skips[row] = Skip(error.reason, error.detail)
    digests[start : start + count] = np.frombuffer(b"".join(computed), np.uint8).reshape(-1, DIGEST_BYTES)
    return skips


def _encoded(encoder: GraphSession, decoded: _InFlight) -> Iterator[EncodedRows]:
    """Wait until a batch is decoded, run the encoder on it, and yield its rows shard by shard."""
    items = decoded.batch.items
    skips = {row: skip for future in decoded.decoding for row, skip in future.result().items()}
    if len(skips) < len(items):
        encoder.run(decoded.buffers)
    ids = [item.id for item in items]
    for segment in decoded.batch.segments:
        part = slice(segment.start, segment.stop)
        outputs = {name: buffer[part] for name, buffer in decoded.buffers.outputs.items()}
        part_skips = {
            row - segment.start: skip for row, skip in skips.items() if segment.start <= row < segment.stop
        }
        digests = decoded.digests[part]
        yield EncodedRows(segment.shard, ids[part], digests, outputs, part_skips, segment.ends_shard)
