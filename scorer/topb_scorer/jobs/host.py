"""Runs the selections that this server has claimed, and keeps their leases alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from topb.results import SelectionResult
from topb_scorer.errors import ScorerError, SelectionCancelledError, UnavailableError, storage_error
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Job, Observer, Outcome, Run
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.pools.pool import Shard
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool, select_from_stream
from topb_scorer.selecting.settings import SelectingSettings

_log = logging.getLogger(__name__)


class SelectionHost:
    """At most so many selections at once, each on a thread of its own, each under a lease."""

    def __init__(
        self,
        state: StateDirectory,
        open_job: Callable[[SelectionRecord], Job],
        *,
        owner: str,
        max_concurrent: int,
        lease_seconds: float,
        selecting: SelectingSettings = SelectingSettings(),
        observer: Observer | None = None,
    ) -> None:
        """Takes what selections need.

        Args:
            state: where they are kept.
            open_job: what a record asks for; raises ScorerError where it cannot be had.
            owner: what the leases are in the name of; no two servers share one.
            max_concurrent: selections that run at once.
            lease_seconds: how long a server may be silent before others take its selections up.
            selecting: memory and devices of selecting.
            observer: is told what they do.

        Attributes:
            max_concurrent: as given.
            workers: the threads that selections run on.
        """
        self._state = state
        self._open_job = open_job
        self._owner = owner
        self.max_concurrent = max_concurrent
        self._observer = observer
        self._lease_seconds = lease_seconds
        self._selecting = selecting
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._draining = False
        self.workers = ThreadPoolExecutor(max_concurrent, thread_name_prefix="selection")

    @property
    def running(self) -> int:
        """How many run here now."""
        return len(self._runs)

    @property
    def draining(self) -> bool:
        """Whether nothing is taken on any more."""
        return self._draining

    def run_of(self, selection: str) -> Run | None:
        """The run of that selection, if it runs here."""
        return self._runs.get(selection)

    def claim(self, record: SelectionRecord) -> Run | None:
        """Takes the selection on, if there is room and no other server works on it; then it must be run."""
        with self._lock:
            if self._draining or len(self._runs) >= self.max_concurrent or record.id in self._runs:
                return None
            if not self._state.catalog.claim(record.id, self._owner, self._lease_seconds):
                return None
            run = self._runs[record.id] = Run(record)
            return run

    def start(self, record: SelectionRecord, job: Job | None = None) -> Run | None:
        """Claims the selection and runs it on a thread; None if it could not be claimed.

        Args:
            record: of the selection.
            job: what it asks for, where that is open already.
        """
        run = self.claim(record)
        if run is not None:
            try:
                self.workers.submit(self.execute, run, lambda: job or self._open_job(record))
            except RuntimeError:  # shut down meanwhile
                self.abandon(run)
                return None
        return run

    def abandon(self, run: Run) -> None:
        """Gives back a claimed selection that will not be run."""
        with self._lock:
            self._runs.pop(run.record.id, None)
        run.ended.set()
        # Otherwise the lease runs out by itself.
        with suppress(UnavailableError):
            self._state.catalog.release(run.record.id, self._owner)

    def execute(
        self,
        run: Run,
        open_job: Callable[[], Job],
        observer: SelectionObserver = SelectionObserver(),
    ) -> SelectionResult | None:
        """Runs a claimed selection to its end, or until it is cancelled; the catalog tells which.

        Returns its result, or None where it failed, was cancelled, or is another server's by now.
        """
        keeper = threading.Thread(target=self._keep_lease, args=(run,), name="lease", daemon=True)
        keeper.start()
        result: SelectionResult | None = None
        outcome: Outcome = "interrupted"
        reason = ""
        try:
            result = self._select(run, open_job(), observer)
            outcome = "succeeded" if result is not None else "interrupted"
        except SelectionCancelledError:
            outcome = self._stopped(run)
        except (UnavailableError, OSError) as error:
            reason = self._interrupted(run, error)
        except Exception as error:
            outcome, reason = "failed", self._failed(run, error)
        finally:
            with self._lock:
                del self._runs[run.record.id]
            if self._observer is not None:
                self._observer.on_ended(run, outcome, reason, result)
            run.ended.set()
            keeper.join()
        return result

    def pause(self, selection: str) -> None:
        """Stops a selection here within one batch, for somebody to go on with later; returns once it has."""
        run = self._runs.get(selection)
        if run is not None:
            run.cancelled.set()
            run.ended.wait()

    def cancel(self, selection: str) -> SelectionRecord:
        """Cancels a selection, wherever it runs."""
        record = self._state.catalog.cancel(selection)
        self.pause(record.id)
        return self._state.catalog.get(record.id)

    def take_up(self) -> None:
        """Starts what waits for a server: detached selections, and those of servers that died."""
        for record in self._state.catalog.orphans():
            if record.cancel_requested:
                self._state.catalog.cancel(record.id)
            elif record.pool_uri or record.stream_chunks is not None:
                self.start(record)

    def drain(self) -> None:
        """From here on nothing is taken on."""
        self._draining = True

    def interrupt(self) -> None:
        """Stops all within one batch; what is scored stays, and the next server carries on."""
        for run in list(self._runs.values()):
            run.cancelled.set()
        self.workers.shutdown(wait=True)

    def _select(self, run: Run, job: Job, observer: SelectionObserver) -> SelectionResult | None:
        run.total = job.total

        def complete_stream(chunks: int) -> None:
            if job.sent_by_caller:
                self._state.catalog.complete_stream(run.record.id, self._owner, chunks)

        following = _RunObserver(run, observer, self._observer, complete_stream)
        if job.sent_by_caller:
            result = select_from_stream(
                job.spec,
                job.engine,
                job.shards,
                job.log,
                settings=self._selecting,
                observer=following,
                cancelled=run.cancelled,
            )
        else:
            result = select_from_pool(
                job.spec,
                job.engine,
                (shard for shard in job.shards if shard is not None),
                job.log,
                settings=self._selecting,
                observer=following,
                cancelled=run.cancelled,
            )
        self._state.results.write(run.record.id, result)
        if not self._state.catalog.succeed(run.record.id, self._owner):
            return None
        if job.sent_by_caller:
            job.log.remove()
        return result

    def _stopped(self, run: Run) -> Outcome:
        catalog = self._state.catalog
        with suppress(UnavailableError):
            if catalog.get(run.record.id).cancel_requested:
                catalog.cancelled(run.record.id, self._owner)
                return "cancelled"
            catalog.release(run.record.id, self._owner)
        return "interrupted"

    def _interrupted(self, run: Run, error: UnavailableError | OSError) -> str:
        """Neither the request nor the pool is at fault: the selection stays open, and can be gone on with."""
        run.error = error if isinstance(error, UnavailableError) else storage_error(error)
        _log.error("selection %s stopped: %s [%s]", run.record.id, run.error, run.error.reason)
        with suppress(UnavailableError):
            self._state.catalog.release(run.record.id, self._owner)
        return run.error.reason

    def _failed(self, run: Run, error: Exception) -> str:
        known, unforeseen = error, None
        if not isinstance(known, ScorerError):
            known, unforeseen = ScorerError(f"{type(error).__name__}: {error}", reason="INTERNAL"), error
        _log.error("selection %s failed: %s [%s]", run.record.id, known, known.reason, exc_info=unforeseen)
        with suppress(UnavailableError):
            self._state.catalog.fail(
                run.record.id,
                self._owner,
                code=type(known).__name__,
                reason=known.reason,
                message=str(known),
            )
        return known.reason

    def _keep_lease(self, run: Run) -> None:
        while not run.ended.wait(self._lease_seconds / 4):
            try:
                kept = self._state.catalog.keep(
                    run.record.id,
                    self._owner,
                    self._lease_seconds,
                    read=run.read,
                    total=run.total,
                    elapsed_seconds=run.elapsed_seconds,
                )
            except UnavailableError as error:
                run.error = error
                kept = False
            if not kept:
                run.cancelled.set()


@dataclass(frozen=True)
class _RunObserver(SelectionObserver):
    """Passes the progress of a run on to the run, the catalog, the host's observer and the caller."""

    run: Run
    caller: SelectionObserver
    host_observer: Observer | None
    complete_stream: Callable[[int], None]

    def on_rows(self, count: int) -> None:
        self.run.read += count
        if self.host_observer is not None:
            self.host_observer.on_rows(count)
        self.caller.on_rows(count)

    def on_commit(self, shard: Shard) -> None:
        if self.host_observer is not None:
            self.host_observer.on_commit(shard)
        self.caller.on_commit(shard)

    def on_complete(self, shards: int) -> None:
        self.complete_stream(shards)
        self.caller.on_complete(shards)
