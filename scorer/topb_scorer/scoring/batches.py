"""Divide the items of shards into batches, and read batches ahead on a separate thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from topb_scorer.pools.pool import ImageShard, PoolItem, with_bounded_id

_POLL_SECONDS = 0.1

Element = TypeVar("Element")


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `stop` (exclusive) of a batch, which belong to one shard."""

    shard: ImageShard
    start: int
    stop: int
    ends_shard: bool
    """Whether the last of these rows is the last row of the shard."""


@dataclass(frozen=True)
class Batch:
    """Items that are scored together."""

    items: list[PoolItem]
    segments: list[Segment]
    """The shards that the items come from, in the same order."""


def batches(shards: Iterable[ImageShard | None], size: int) -> Iterator[Batch | None]:
    """Yield the items of all shards in order, in batches of `size`. A batch may span several shards.

    Where `shards` yields None, yield the partial batch and then None, which means that no further batch is
    ready. None also follows the last batch.
    """
    items: list[PoolItem] = []
    segments: list[Segment] = []
    for shard in shards:
        if shard is None:
            if segments:
                yield Batch(items, segments)
                items, segments = [], []
            yield None
            continue
        start = len(items)
        for item in shard.items():
            if len(items) == size:
                segments.append(Segment(shard, start, len(items), ends_shard=False))
                yield Batch(items, segments)
                items, segments, start = [], [], 0
            items.append(with_bounded_id(item))
        segments.append(Segment(shard, start, len(items), ends_shard=True))
    if segments:
        yield Batch(items, segments)
    yield None


def read_ahead(source: Iterator[Element], most: int) -> Generator[Element, None, None]:
    """Yield the elements of `source`, reading up to `most` of them ahead on a thread.

    Closing the generator stops the thread.

    Raises:
        Exception: any error that `source` raises.
    """
    stop = threading.Event()
    ready: queue.Queue[tuple[Element] | BaseException | None] = queue.Queue(most)

    def put(entry: tuple[Element] | BaseException | None) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=_POLL_SECONDS)
                return True
        return False

    def read() -> None:
        try:
            for element in source:
                if not put((element,)):
                    return
        except BaseException as error:
            put(error)
        else:
            put(None)

    reader = threading.Thread(target=read, name="read", daemon=True)
    reader.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        reader.join()
