from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from topb.progress import Progress
from topb_scorer.pools import Shard
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.service.relay import ChunkScored, SelectionRelay

pytestmark = pytest.mark.scorer


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def chunk(seq: int) -> Shard:
    return ChunkShard(seq, ["a"], [b""])


async def told(
    executor: ThreadPoolExecutor, work: Callable[[SelectionRelay], None]
) -> list[Progress | ChunkScored]:
    relay = SelectionRelay()
    async with aclosing(relay.events(executor, lambda: work(relay), lambda: None)) as events:
        return [event async for event in events]


def test_every_chunk_that_is_in_the_log_is_told_in_order(executor: ThreadPoolExecutor) -> None:
    def work(relay: SelectionRelay) -> None:
        for seq in range(100):
            relay.on_commit(chunk(seq))

    assert asyncio.run(told(executor, work)) == [ChunkScored(seq) for seq in range(100)]


def test_a_chunk_is_told_while_the_worker_goes_on(executor: ThreadPoolExecutor) -> None:
    heard = threading.Event()

    async def first() -> object:
        relay = SelectionRelay()

        def work() -> None:
            relay.on_commit(chunk(0))
            assert heard.wait(10)
            relay.on_commit(chunk(1))

        async with aclosing(relay.events(executor, work, lambda: None)) as events:
            event = await anext(events)
            heard.set()
            return [event, *[event async for event in events]]

    assert asyncio.run(first()) == [ChunkScored(0), ChunkScored(1)]


def test_of_progress_only_the_latest_is_told_and_seldom(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topb_scorer.service.relay._PROGRESS_SECONDS", 0.05)

    def work(relay: SelectionRelay) -> None:
        for _ in range(300):
            time.sleep(0.001)
            relay.on_rows(2)

    events = asyncio.run(told(executor, work))
    read = [event.read for event in events if isinstance(event, Progress)]
    assert len(read) == len(events)
    assert 1 <= len(read) <= 20
    assert read == sorted(read)
    assert 0 < read[-1] <= 600


def test_a_caller_that_leaves_stops_the_worker_and_waits_for_it(executor: ThreadPoolExecutor) -> None:
    stopped = threading.Event()
    ended: list[bool] = []

    async def leave() -> None:
        relay = SelectionRelay()

        def work() -> None:
            relay.on_commit(chunk(0))
            assert stopped.wait(10)
            time.sleep(0.1)
            ended.append(True)

        async with aclosing(relay.events(executor, work, stopped.set)) as events:
            await anext(events)
        assert ended == [True]

    asyncio.run(leave())


def test_a_cancelled_call_stops_the_worker_and_waits_for_it(executor: ThreadPoolExecutor) -> None:
    stopped = threading.Event()
    ended: list[bool] = []

    async def call() -> None:
        relay = SelectionRelay()

        def work() -> None:
            assert stopped.wait(10)
            ended.append(True)

        async with aclosing(relay.events(executor, work, stopped.set)) as events:
            async for _ in events:
                pass

    async def cancel() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(cancel())
