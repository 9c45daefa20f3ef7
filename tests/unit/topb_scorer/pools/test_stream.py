from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from support.pools import reason_of
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.pools import PoolItem
from topb_scorer.pools.stream import ChunkQueue, ChunkShard

pytestmark = pytest.mark.scorer


def chunk(seq: int) -> ChunkShard:
    return ChunkShard(seq, [f"{seq}"], [b"image"])


def test_each_image_has_its_id_and_an_image_without_an_id_is_an_unreadable_row() -> None:
    shard = ChunkShard(4, ["a", ""], [b"one", b"two"])
    encoded, nameless = shard.items()
    assert shard.rows == 2
    assert encoded == PoolItem("a", b"one")
    assert (nameless.id, reason_of(nameless.image)) == ("4:1", "ID_MISSING")
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    for image, item in zip(images, ChunkShard(0, ["a", "b"], images).items(), strict=True):
        assert np.array_equal(item.image, image)


def test_identities_differ_and_sort_as_the_chunks_do() -> None:
    identities = [chunk(seq).identity for seq in (0, 1, 9, 10, 2**63)]
    assert identities == sorted(set(identities))


def test_chunks_come_in_order_until_the_end() -> None:
    queue = ChunkQueue(8, threading.Event())
    for seq in range(3):
        queue.put(chunk(seq))
    queue.put(None)
    assert [shard.seq for shard in queue.shards() if shard] == [0, 1, 2]


def test_none_is_returned_repeatedly_while_a_chunk_is_late() -> None:
    queue = ChunkQueue(8, threading.Event())
    queue.put(chunk(0))
    shards = queue.shards()
    assert next(shards) == chunk(0)
    assert [next(shards) for _ in range(3)] == [None] * 3
    queue.put(chunk(1))
    assert next(shards) == chunk(1)


def test_a_full_queue_makes_the_sender_wait() -> None:
    queue = ChunkQueue(2, threading.Event())
    sent: list[int] = []

    def send() -> None:
        for seq in range(100):
            sent.append(seq)
            queue.put(chunk(seq))
        queue.put(None)

    sender = threading.Thread(target=send)
    sender.start()
    taken = 0
    for shard in queue.shards():
        if shard is not None:
            taken += 1
            # Two are queued, one waits for room, and one was taken since.
            assert len(sent) <= taken + 3
    sender.join()
    assert taken == 100


@pytest.mark.parametrize(
    "wait", [lambda queue: list(queue.shards()), lambda queue: [queue.put(chunk(seq)) for seq in range(2)]]
)
def test_cancelling_wakes_a_thread_that_waits_for_the_queue(wait: Callable[[ChunkQueue], object]) -> None:
    cancelled = threading.Event()
    queue = ChunkQueue(1, cancelled)
    threading.Timer(0.05, cancelled.set).start()
    with pytest.raises(SelectionCancelledError):
        wait(queue)


def test_queued_chunks_are_dropped_on_cancellation() -> None:
    cancelled = threading.Event()
    queue = ChunkQueue(2, cancelled)
    queue.put(chunk(0))
    cancelled.set()
    with pytest.raises(SelectionCancelledError):
        next(queue.shards())
