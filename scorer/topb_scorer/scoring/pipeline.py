"""Read → decode → batch → session → log: the one loop through which every image goes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer import imaging
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.imaging import ImageLimits, SkippedImageError
from topb_scorer.pools.pool import PoolItem, Shard, Unreadable
from topb_scorer.scoring.score_log import LOGGED_OUTPUTS, ScoredRows, Skip, scored_rows
from topb_scorer.scoring.session import Batch, ScoringSession

_LOADS_READ_AHEAD = 4
_BATCHES_UNDER_WAY = 3
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of a load; they belong to one shard, and the last of them may end it."""

    shard: Shard
    start: int
    stop: int
    ends_shard: bool


@dataclass(frozen=True)
class _Load:
    items: list[PoolItem]
    segments: list[Segment]


@dataclass(frozen=True)
class _UnderWay:
    load: _Load
    batch: Batch
    decoding: list[Future[dict[int, Skip]]]


@dataclass(frozen=True)
class ShardRows:
    """Rows of one shard as they were scored, in the shard's order."""

    shard: Shard
    rows: ScoredRows
    ends_shard: bool


def score_shards(
    shards: Iterable[Shard | None],
    session: ScoringSession,
    target: ImageInput,
    *,
    outputs: Sequence[str] = LOGGED_OUTPUTS,
    limits: ImageLimits,
    decode_threads: int,
    cancelled: threading.Event,
) -> Generator[ShardRows, None, None]:
    """Scores all items of `shards`, in order, in full batches that span shards.

    One thread reads ahead, `decode_threads` decode, the caller's runs the session; what is in flight is
    bounded by a few batches. Closing the iterator stops them all.

    Args:
        shards: read one after the other; None among them means that no more is to be had just now, and
            the batch at hand is run as it is.
        session: computes the outputs.
        target: what the session's graph takes for one image.
        outputs: `score`, `probabilities` and, if the rows are to have them, `features`.
        limits: what is skipped rather than decoded.
        decode_threads: at least 1.
        cancelled: looked at before each batch.

    Raises:
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end.
    """
    stop = threading.Event()
    free = deque(session.new_batch(outputs) for _ in range(_BATCHES_UNDER_WAY))
    under_way: deque[_UnderWay] = deque()
    with (
        ThreadPoolExecutor(decode_threads, thread_name_prefix="decode") as decoders,
        closing(_read_ahead(_loads(shards, session.batch_size), stop)) as loads,
    ):
        try:
            for load in loads:
                _check(cancelled)
                while under_way and (load is None or not free):
                    _check(cancelled)
                    done = under_way.popleft()
                    yield from _run(session, done)
                    free.append(done.batch)
                if load is not None:
                    batch = free.popleft()
                    under_way.append(_UnderWay(load, batch, _decode(decoders, load, batch, target, limits)))
        finally:
            for abandoned in under_way:
                for future in abandoned.decoding:
                    future.cancel()


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise SelectionCancelledError


def _loads(shards: Iterable[Shard | None], size: int) -> Iterator[_Load | None]:
    """Cuts shards into loads of `size` items; None after the last, and where the shards have a None."""
    items: list[PoolItem] = []
    segments: list[Segment] = []
    for shard in shards:
        if shard is None:
            if items or segments:
                yield _Load(items, segments)
                items, segments = [], []
            yield None
            continue
        start = len(items)
        for item in shard.items():
            if len(items) == size:
                segments.append(Segment(shard, start, len(items), ends_shard=False))
                yield _Load(items, segments)
                items, segments, start = [], [], 0
            items.append(item)
        segments.append(Segment(shard, start, len(items), ends_shard=True))
    if segments:
        yield _Load(items, segments)
    yield None


@dataclass(frozen=True)
class _Failure:
    error: BaseException


_END = object()


def _read_ahead(loads: Iterator[_Load | None], stop: threading.Event) -> Generator[_Load | None, None, None]:
    """The same loads, read by a thread of its own, at most a few ahead."""
    ready: queue.Queue[object] = queue.Queue(_LOADS_READ_AHEAD)

    def put(entry: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for load in loads:
                if not put(load):
                    return
        except BaseException as error:
            put(_Failure(error))
        else:
            put(_END)

    reader = threading.Thread(target=read, name="read", daemon=True)
    reader.start()
    try:
        while (entry := ready.get()) is not _END:
            if isinstance(entry, _Failure):
                raise entry.error
            assert entry is None or isinstance(entry, _Load)
            yield entry
    finally:
        stop.set()
        reader.join()


def _decode(
    decoders: ThreadPoolExecutor, load: _Load, batch: Batch, target: ImageInput, limits: ImageLimits
) -> list[Future[dict[int, Skip]]]:
    """Starts decoding a load into a batch, in a few runs of rows; each tells which rows it skipped."""
    rows_each = max(1, -(-len(load.items) // 8))
    return [
        decoders.submit(_decode_rows, load.items, batch.images, start, rows_each, target, limits)
        for start in range(0, len(load.items), rows_each)
    ]


def _decode_rows(
    items: list[PoolItem],
    images: NDArray[np.uint8],
    start: int,
    count: int,
    target: ImageInput,
    limits: ImageLimits,
) -> dict[int, Skip]:
    skips: dict[int, Skip] = {}
    for row, item in enumerate(items[start : start + count], start):
        if isinstance(item.image, Unreadable):
            skips[row] = Skip(item.image.reason, item.image.detail)
            continue
        try:
            images[row] = imaging.load(item.image, target, limits)
        except SkippedImageError as error:
            skips[row] = Skip(error.reason, error.detail)
    return skips


def _run(session: ScoringSession, done: _UnderWay) -> Iterator[ShardRows]:
    items = done.load.items
    skips: dict[int, Skip] = {}
    for future in done.decoding:
        skips.update(future.result())
    if len(skips) < len(items):
        session.run(done.batch)
    ids = [item.id for item in items]
    for segment in done.load.segments:
        part = slice(segment.start, segment.stop)
        outputs = {name: buffer[part] for name, buffer in done.batch.outputs.items()}
        part_skips = {
            row - segment.start: skip for row, skip in skips.items() if segment.start <= row < segment.stop
        }
        yield ShardRows(segment.shard, scored_rows(ids[part], outputs, part_skips), segment.ends_shard)
