"""Let a coroutine wait for a run on a worker thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from topb_scorer.jobs.run import Run
from topb_scorer.pools.pool import Shard
from topb_scorer.selecting.observer import SelectionObserver

PROGRESS_SECONDS = 0.25
"""The interval at which callers receive progress."""


class RunEvents(SelectionObserver):
    """Wakes a coroutine when a run has ended and, if it observes the run, when a shard was committed.

    It does not queue data: after each wait, the coroutine reads the state of the run. Slow callers therefore
    take no memory.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        run.ended.add_done_callback(lambda _: self.wake())

    def on_commit(self, shard: Shard) -> None:  # noqa: ARG002
        """Wake the coroutine."""
        self.wake()

    def wake(self) -> None:
        """Wake the coroutine. This method can be called on any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self) -> None:
        """Wait until the coroutine is woken, for PROGRESS_SECONDS at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_SECONDS):
                await self._woken.wait()
        self._woken.clear()
