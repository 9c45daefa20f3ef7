from __future__ import annotations

import asyncio
import threading
import time

import pytest

from topb_scorer.jobs.run import Run
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.service import run_events
from topb_scorer.service.run_events import RunEvents

pytestmark = pytest.mark.scorer

CHUNK = ChunkShard(0, ["a"], [b""])


@pytest.fixture
def run() -> Run:
    return Run(record=None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_progress_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_events, "PROGRESS_SECONDS", 60.0)


async def on_worker(work: threading.Thread) -> None:
    work.start()
    await asyncio.to_thread(work.join)


def test_a_commit_wakes_a_coroutine_that_waits(run: Run) -> None:
    async def wait() -> None:
        events = RunEvents(run)
        waiting = asyncio.create_task(events.wait())
        await on_worker(threading.Thread(target=events.on_commit, args=(CHUNK,)))
        await asyncio.wait_for(waiting, 10)

    asyncio.run(wait())


def test_what_happens_before_a_wait_is_not_missed(run: Run) -> None:
    async def wait() -> None:
        events = RunEvents(run)
        await on_worker(threading.Thread(target=events.on_commit, args=(CHUNK,)))
        await asyncio.wait_for(events.wait(), 10)
        # One wait answers for all that happened before it.
        waiting = asyncio.create_task(events.wait())
        assert not (await asyncio.wait([waiting], timeout=0.05))[0]
        waiting.cancel()

    asyncio.run(wait())


@pytest.mark.parametrize("already", [True, False])
def test_the_end_of_a_run_wakes_every_coroutine(run: Run, already: bool) -> None:
    async def wait() -> None:
        end = threading.Thread(target=run.ended.set_result, args=(None,))
        if already:
            await on_worker(end)
        waiting = [asyncio.create_task(RunEvents(run).wait()) for _ in range(3)]
        if not already:
            await asyncio.sleep(0)
            await on_worker(end)
        await asyncio.wait_for(asyncio.gather(*waiting), 10)

    asyncio.run(wait())


def test_a_wait_ends_when_progress_is_due(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_events, "PROGRESS_SECONDS", 0.05)
    started = time.monotonic()
    asyncio.run(_wait_once(run))
    assert time.monotonic() - started >= 0.05


async def _wait_once(run: Run) -> None:
    await RunEvents(run).wait()
