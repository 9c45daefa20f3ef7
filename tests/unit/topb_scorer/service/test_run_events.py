from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from topb_scorer.jobs.run import Run
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.service import run_events
from topb_scorer.service.run_events import RunEvents

pytestmark = pytest.mark.scorer

CHUNK = ChunkShard(0, ["a"], [b""])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of which no progress is due."""
    monkeypatch.setattr(run_events, "PROGRESS_SECONDS", 60.0)
    return Run(record=None)  # type: ignore[arg-type]


async def on_worker(work: Callable[..., object], *args: object) -> None:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("before", [True, False], ids=["before", "during"])
@pytest.mark.parametrize("what", ["commit", "end"])
def test_an_event_before_or_during_a_wait_ends_the_wait(what: str, before: bool, run: Run) -> None:
    async def wait() -> None:
        all_events = [RunEvents(run) for _ in range(3)]
        waiting = [] if before else [asyncio.create_task(events.wait()) for events in all_events]
        await asyncio.sleep(0)
        if what == "commit":
            for events in all_events:
                await on_worker(events.on_commit, CHUNK)
        else:
            await on_worker(run.ended.set_result, None)
        waiting = waiting or [asyncio.create_task(events.wait()) for events in all_events]
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        # One wait answers for all that happened before it.
        again = asyncio.create_task(all_events[0].wait())
        assert not (await asyncio.wait([again], timeout=0.05))[0]
        again.cancel()

    asyncio.run(wait())


def test_a_wait_on_a_finished_run_returns_at_once(run: Run) -> None:
    async def wait() -> None:
        run.ended.set_result(None)
        await asyncio.wait_for(RunEvents(run).wait(), 10)

    asyncio.run(wait())


def test_a_wait_ends_when_progress_is_due(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        await asyncio.wait_for(RunEvents(run).wait(), 10)

    monkeypatch.setattr(run_events, "PROGRESS_SECONDS", 0.05)
    asyncio.run(wait())
