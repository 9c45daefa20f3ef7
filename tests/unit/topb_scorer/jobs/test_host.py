from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.images import random_pool
from topb.results import SelectionResult
from topb.selections import SelectionState
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import UnreadablePoolError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.run import Job, Outcome, PoolJob, Run, RunObserver
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.spec import SelectionSpec

pytestmark = pytest.mark.scorer


@dataclass
class RecordingObserver(RunObserver):
    rows: int = 0
    committed: int = 0
    ended: list[tuple[str, Outcome, str, int | None]] = field(default_factory=list)

    def on_rows(self, count: int) -> None:
        self.rows += count

    def on_commit(self, shard: Shard) -> None:
        self.committed += shard.rows

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        self.ended.append((run.record.id, outcome, reason, len(result.picks) if result else None))


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
def job(state: StateDirectory, engine: LocalEngine) -> Callable[..., PoolJob]:
    def job_of(*shards: Shard) -> PoolJob:
        return PoolJob(SelectionSpec(3, "margin"), engine, state.score_log("model"), shards)

    return job_of


def created(state: StateDirectory) -> SelectionRecord:
    return state.catalog.create(NewSelection("", b"request", "model", "margin", 3, "/pool", False))


def shards() -> list[Shard]:
    rows = list(random_pool(30))
    return [
        ChunkShard(seq, [id_ for id_, _ in part], [image for _, image in part])
        for seq, part in enumerate((rows[:10], rows[10:]))
    ]


def run_to_its_end(host: SelectionHost, record: SelectionRecord, open_job: Callable[[], Job]) -> None:
    run = host.claim(record)
    assert run is not None
    host.launch(run, open_job)
    run.ended.result(30)


def test_a_selection_that_succeeds(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    record = created(state)
    run_to_its_end(host, record, lambda: job(*shards()))
    assert (observer.rows, observer.committed) == (30, 30)
    assert observer.ended == [(record.id, "succeeded", "", 3)]


def test_rows_that_were_scored_before_are_rows_and_no_commits(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    record, again = created(state), created(state)
    for each in (record, again):
        run_to_its_end(host, each, lambda: job(*shards()))
    assert (observer.rows, observer.committed) == (60, 30)
    assert [outcome for _, outcome, _, _ in observer.ended] == ["succeeded", "succeeded"]


def test_a_selection_that_fails(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    class Torn(ChunkShard):
        def items(self):
            yield from ()
            raise UnreadablePoolError("torn", reason="POOL_TORN")

    record = created(state)
    run_to_its_end(host, record, lambda: job(*shards(), Torn(2, ["a"], [b""])))
    assert observer.ended == [(record.id, "failed", "POOL_TORN", None)]


def test_an_unexpected_error_is_a_failure(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver
) -> None:
    record = created(state)
    run_to_its_end(host, record, lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert observer.ended == [(record.id, "failed", "INTERNAL", None)]


def test_a_selection_that_its_caller_cancels(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    record = created(state)

    class Cancelling(ChunkShard):
        def items(self):
            yield from super().items()
            state.catalog.cancel(record.id)
            host.run_of(record.id).cancelled.set()

    first, second = shards()
    run_to_its_end(host, record, lambda: job(Cancelling(0, first.ids, first.images), second))
    assert observer.ended == [(record.id, "cancelled", "", None)]
    assert state.catalog.get(record.id).state is SelectionState.CANCELLED


def test_a_selection_that_a_drain_interrupts_stays_open(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver, job: Callable[..., PoolJob]
) -> None:
    record = created(state)

    class Draining(ChunkShard):
        def items(self):
            yield from super().items()
            host.run_of(record.id).cancelled.set()

    first, second = shards()
    run_to_its_end(host, record, lambda: job(Draining(0, first.ids, first.images), second))
    assert observer.ended == [(record.id, "interrupted", "", None)]
    assert not state.catalog.get(record.id).state.ended


def test_a_full_disk_leaves_the_selection_open(
    host: SelectionHost, state: StateDirectory, observer: RecordingObserver
) -> None:
    def full() -> Job:
        raise OSError(28, "No space left on device")

    record = created(state)
    run_to_its_end(host, record, full)
    ((_, outcome, reason, _),) = observer.ended
    assert (outcome, reason) == ("interrupted", "STORAGE_FULL")
    assert not state.catalog.get(record.id).state.ended
