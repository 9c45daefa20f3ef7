"""Runs a selection in a worker thread and tells an event loop how it goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from topb.progress import Progress
from topb.results import SelectionResult

from topb_scorer.pools.pool import Shard
from topb_scorer.pools.stream import ChunkShard

_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True)
class ChunkScored:
    """The chunk of this sequence number is in the score log."""

    seq: int


Event = Progress | ChunkScored | SelectionResult


class SelectionRelay:
    """The link between one selection's worker thread and the coroutine that answers its caller.

    Of progress only the latest is kept, so a caller that is slow to read holds no memory.
    """

    def __init__(self, total: int, cancelled: threading.Event) -> None:
        self.cancelled = cancelled
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._started = time.monotonic()
        self._total = total
        self._read = 0
        self._reported = 0.0
        self._progress: Progress | None = None
        self._scored: deque[ChunkScored] = deque()

    def on_rows(self, rows: int) -> None:
        """Called by the worker as rows are scored."""
        self._read += rows
        elapsed = time.monotonic() - self._started
        if elapsed - self._reported >= _PROGRESS_SECONDS:
            self._reported = elapsed
            self._progress = Progress(read=self._read, total=self._total, elapsed_seconds=elapsed)
            self._wake()

    def on_commit(self, shard: Shard) -> None:
        """Called by the worker once a shard is in the log."""
        if isinstance(shard, ChunkShard):
            self._scored.append(ChunkScored(shard.seq))
            self._wake()

    async def events(
        self, executor: Executor, work: Callable[[SelectionRelay], SelectionResult]
    ) -> AsyncGenerator[Event, None]:
        """Runs `work` on the executor; yields what it tells, and its result last.

        However this ends, the worker has stopped when it does.
        """
        job = executor.submit(work, self)
        future = asyncio.wrap_future(job)
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
            result = await future
            while self._scored:
                yield self._scored.popleft()
            yield result
        finally:
            self.cancelled.set()
            # A worker that never started is taken back; one that runs sees the flag within a batch.
            if not job.cancel():
                await asyncio.wait([future])
                future.exception()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)
