"""Let a coroutine wait for a selection that runs on a worker thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from topb_scorer.jobs.run import Run
from topb_scorer.pools.pool import Shard
from topb_scorer.selecting.observer import SelectionObserver

PROGRESS_SECONDS = 0.25
"""Interval at which callers receive progress."""


class RunEvents(SelectionObserver):
    """Wakes a coroutine when a run has ended, and, if it observes the run, when a shard was committed.

    It carries no data: after each wait the coroutine looks at the run itself. A caller that reads slowly
    therefore occupies no memory.
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
        """Wake the coroutine, from any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self) -> None:
        """Wait until something has happened, at most until progress is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_SECONDS):
                await self._woken.wait()
        self._woken.clear()
