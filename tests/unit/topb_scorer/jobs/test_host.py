from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.images import random_pool
from support.waiting import once
from topb.results import SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import CatalogError, UnavailableError, UnreadablePoolError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.run import Job, Outcome, PoolJob, Run, RunObserver
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.pool import PoolItem, Shard
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.spec import SelectionSpec

pytestmark = pytest.mark.scorer

RunToItsEnd = Callable[[Callable[[Run], Job]], SelectionRecord]


@dataclass
class RecordingObserver(RunObserver):
    rows: int = 0
    committed: int = 0
    ended: list[tuple[Outcome, str, int | None]] = field(default_factory=list)

    def on_rows(self, count: int) -> None:
        self.rows += count

    def on_commit(self, shard: Shard) -> None:
        self.committed += shard.rows

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        assert not run.ended.done()
        self.ended.append((outcome, reason, len(result.picks) if result else None))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    state = StateDirectory.open(tmp_path / "state")
    yield state
    state.catalog.close()


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def host(state: StateDirectory, observer: RecordingObserver) -> Iterator[SelectionHost]:
    host = SelectionHost(state, no_job, owner="here", max_concurrent=1, lease_seconds=30, observer=observer)
    yield host
    host.interrupt()


def no_job(record: SelectionRecord) -> Job:
    raise AssertionError(f"{record.id} comes with its job")


@pytest.fixture
def run_to_its_end(host: SelectionHost, state: StateDirectory) -> RunToItsEnd:
    """Run a new selection with the job that a function returns, and return its record afterwards."""

    def run_to_its_end(open_job: Callable[[Run], Job]) -> SelectionRecord:
        new = NewSelection("", "model", "margin", 3, "/pool", False, b"request")
        run = Run(state.catalog.create(new))
        run.open_job = lambda: open_job(run)
        assert host.start(run)
        run.ended.result(30)
        return state.catalog.get(run.record.id)

    return run_to_its_end


@pytest.fixture
def job(state: StateDirectory, engine: LocalEngine) -> Callable[..., PoolJob]:
    rows = list(random_pool(30))

    def job(after_the_first_shard: Callable[[], object] = lambda: None) -> PoolJob:
        """Return the job of a pool of 10 and 20 rows."""

        class FirstShard(ChunkShard):
            def items(self) -> Iterator[PoolItem]:
                yield from super().items()
                after_the_first_shard()

        first = FirstShard(0, *map(list, zip(*rows[:10], strict=True)))
        second = ChunkShard(1, *map(list, zip(*rows[10:], strict=True)))
        logs = state.model_logs(engine.bundle, needs_features=False)
        return PoolJob(SelectionSpec(3, "margin"), engine, logs, [first, second])

    return job


def test_rows_scored_earlier_count_as_rows_but_not_as_commits(
    run_to_its_end: RunToItsEnd, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    for selections in (1, 2):
        assert run_to_its_end(lambda _: job()).state == "succeeded"
        assert (observer.rows, observer.committed) == (30 * selections, 30)
    assert observer.ended == [("succeeded", "", 3)] * 2


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "state_after"),
    [
        (UnreadablePoolError("torn", reason="POOL_TORN"), "failed", "POOL_TORN", "failed"),
        (ZeroDivisionError(), "failed", "INTERNAL", "failed"),
        (OSError(28, "No space left on device"), "interrupted", "STORAGE_FULL", "pending"),
        (OSError("Couldn't deserialize thrift"), "failed", "INTERNAL", "failed"),
        (UnavailableError("away", reason="AWAY"), "interrupted", "AWAY", "pending"),
        (CatalogError("no column", reason="DAMAGED"), "interrupted", "DAMAGED", "pending"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_an_error_ends_a_selection_or_leaves_it_open(
    error: Exception,
    outcome: str,
    reason: str,
    state_after: str,
    run_to_its_end: RunToItsEnd,
    observer: RecordingObserver,
) -> None:
    def fail(_: Run) -> Job:
        raise error

    assert run_to_its_end(fail).state == state_after
    assert observer.ended == [(outcome, reason, None)]


@pytest.mark.parametrize("by_its_caller", [True, False])
def test_a_selection_that_is_stopped_stays_open_unless_its_caller_cancelled_it(
    by_its_caller: bool,
    run_to_its_end: RunToItsEnd,
    state: StateDirectory,
    observer: RecordingObserver,
    job: Callable[..., PoolJob],
) -> None:
    def open_job(run: Run) -> Job:
        def stop() -> None:
            if by_its_caller:
                state.catalog.cancel(run.record.id)
            run.cancelled.set()

        return job(stop)

    assert run_to_its_end(open_job).state == ("cancelled" if by_its_caller else "pending")
    assert observer.ended == [("cancelled" if by_its_caller else "interrupted", "", None)]


def detached(state: StateDirectory, count: int) -> list[str]:
    """Create detached selections and return their ids."""
    new = NewSelection("", "model", "margin", 3, "/pool", True, b"request")
    return [state.catalog.create(new).id for _ in range(count)]


def test_the_end_of_a_run_starts_the_next_selection(
    state: StateDirectory, job: Callable[..., PoolJob]
) -> None:
    """The host is asked to look for selections only once."""
    order: list[str] = []

    def open_job(record: SelectionRecord) -> Job:
        order.append(record.id)
        return job()

    host = SelectionHost(state, open_job, owner="here", max_concurrent=1, lease_seconds=30)
    waiting = detached(state, 20)
    host.take_up()
    once(lambda: state.catalog.get(waiting[-1]).state.ended, seconds=20)
    host.interrupt()
    assert order == waiting
    assert {state.catalog.get(id_).state for id_ in waiting} == {"succeeded"}


def test_a_selection_that_a_fault_interrupted_is_not_started_again_at_once(state: StateDirectory) -> None:
    attempts: list[str] = []

    def open_job(record: SelectionRecord) -> Job:
        attempts.append(record.id)
        raise OSError(28, "No space left on device")

    host = SelectionHost(state, open_job, owner="here", max_concurrent=1, lease_seconds=30)
    (waiting,) = detached(state, 1)
    for _ in range(2):
        host.take_up()
        once(lambda: host.running_count == 0)
    host.interrupt()
    assert attempts == [waiting] * 2
