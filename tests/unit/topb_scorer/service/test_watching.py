from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from topb_scorer.errors import LimitExceededError, UnavailableError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.run import Job, Run
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.service.watching import Watchers

pytestmark = pytest.mark.scorer


class SlowHost(SelectionHost):
    """A host whose runs have ended before it returns from starting them."""

    starts = 0

    def start(self, run: Run) -> bool:
        self.starts += 1
        started = super().start(run)
        run.ended.result(10)
        return started


def disk_is_full(_record: SelectionRecord) -> Job:
    raise OSError(28, "No space left on device")


def unavailable(*_: object) -> bool:
    raise UnavailableError("the disk of the catalog is full", reason="CATALOG_UNAVAILABLE")


@pytest.mark.parametrize("fault", ["storage", "catalog"])
def test_the_error_of_a_run_that_ends_at_once_reaches_its_caller(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory.open(tmp_path / "state")
    if fault == "catalog":
        monkeypatch.setattr(state.catalog, "claim", unavailable)
    host = SlowHost(state, disk_is_full, owner="here", max_concurrent=1, lease_seconds=30)
    record = state.create(NewSelection("", "model", "margin", 3, "/pool", detached=False, request=b"request"))

    async def follow() -> None:
        async for _ in Watchers(state.catalog, host).follow(record, None, detached=False):
            pass

    with pytest.raises((LimitExceededError, UnavailableError)) as caught:
        asyncio.run(asyncio.wait_for(follow(), 20))
    assert caught.value.reason == ("STORAGE_FULL" if fault == "storage" else "CATALOG_UNAVAILABLE")
    assert host.starts == 1
    host.interrupt()
    state.catalog.close()
