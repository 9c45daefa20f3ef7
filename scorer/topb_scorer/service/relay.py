"""Tells an event loop how a worker thread's selection goes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from topb.progress import Progress
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.observer import SelectionObserver

_PROGRESS_SECONDS = 0.25
_REPEATS_UNTOLD = 8
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class ChunkScored:
    """The chunk of this sequence number is in the score log."""

    seq: int


class SelectionRelay(SelectionObserver):
    """The link between one selection's worker thread and the coroutine that answers its caller.

    Of progress only the latest is kept, so a caller that is slow to read holds no memory.
    """

    def __init__(self, *, chunks_held: int = 0) -> None:
        """Takes how many chunks of the stream are in the log already."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._started = time.monotonic()
        self._read = 0
        self._reported = 0.0
        self._progress: Progress | None = None
        self._scored: deque[ChunkScored] = deque()
        self._chunks_held = chunks_held

    def on_rows(self, count: int) -> None:
        """Called by the worker as rows are scored."""
        self._read += count
        elapsed = time.monotonic() - self._started
        if elapsed - self._reported >= _PROGRESS_SECONDS:
            self._reported = elapsed
            self._progress = Progress(read=self._read, total=0, elapsed_seconds=elapsed)
            self._wake()

    def on_commit(self, shard: Shard) -> None:
        """Called by the worker once a shard is in the log."""
        if isinstance(shard, ChunkShard):
            self._scored.append(ChunkScored(shard.seq))
            self._chunks_held = shard.seq + 1
            self._wake()

    async def on_repeat(self, seq: int) -> None:
        """Called when a chunk comes that came before: tells of it once more, if it is in the log.

        Waits while the caller does not listen. Of a chunk that is not in the log yet it is told when it is.
        """
        while len(self._scored) >= _REPEATS_UNTOLD:
            await asyncio.sleep(_POLL_SECONDS)
        if seq < self._chunks_held:
            self._scored.append(ChunkScored(seq))
            self._changed.set()

    async def events(
        self, executor: Executor, work: Callable[[], object], stop: Callable[[], None]
    ) -> AsyncGenerator[Progress | ChunkScored, None]:
        """Runs `work` on the executor and yields what it tells until it has ended.

        However this generator ends, the worker has ended when it does: `stop` is called to see to that.
        """
        future = self._loop.run_in_executor(executor, work)
        future.add_done_callback(lambda _: self._changed.set())
        try:
            while not future.done():
                await self._changed.wait()
                self._changed.clear()
                while self._scored:
                    yield self._scored.popleft()
                if self._progress is not None:
                    progress, self._progress = self._progress, None
                    yield progress
            while self._scored:
                yield self._scored.popleft()
        finally:
            stop()
            await asyncio.wait([future])

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)
