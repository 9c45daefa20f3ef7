"""Run the selections that this server has claimed, and renew their leases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace

from topb.progress import QueuePlace
from topb.results import SelectionResult
from topb_scorer.errors import (
    CatalogError,
    ScorerError,
    SelectionCancelledError,
    StorageFullError,
    UnavailableError,
    is_storage_fault,
    storage_error,
    unexpected_error,
)
from topb_scorer.jobs.expiry import Expiry
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Job, Outcome, PoolJob, Run, RunObserver
from topb_scorer.jobs.run_queue import RunQueue
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.memory import give_back
from topb_scorer.pools.pool import Shard
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.settings import SelectingSettings

_log = logging.getLogger(__name__)

# They are no fault of the selection, which stays open.
_CATALOG_ERRORS = (UnavailableError, CatalogError)


# Each waiting selection holds a call or a place in the catalog, so this only keeps a flood out.
_MAX_WAITING = 1000


class SelectionHost:
    """Runs a limited number of selections at once, each on its own thread and under a lease.

    Further selections wait in a queue, and start in the order in which they came.

    Attributes:
        max_concurrent: the maximum number of selections that run at once.
    """

    def __init__(
        self,
        state: StateDirectory,
        open_job: Callable[[SelectionRecord], Job],
        *,
        owner: str,
        max_concurrent: int,
        lease_seconds: float,
        keep_paused_days: float = 7.0,
        selecting: SelectingSettings = SelectingSettings(),
        observer: RunObserver = RunObserver(),
    ) -> None:
        """Create a host that runs nothing yet.

        Args:
            state: the state directory with the catalog and the results.
            open_job: returns the job of a record. It raises ScorerError if the selection cannot be run.
            owner: the name under which this host takes leases. It must be unique among all servers.
            max_concurrent: the maximum number of selections that run at once.
            lease_seconds: the duration of a lease. If this host does not renew a lease in time, another
                server takes over the selection.
            keep_paused_days: after how many days without a caller a paused selection ends.
            selecting: the memory limit and the device for selecting.
            observer: receives the progress of every selection.
        """
        self._catalog = state.catalog
        self._results = state.results
        self._open_job = open_job
        self._owner = owner
        self.max_concurrent = max_concurrent
        self._observer = observer
        self._lease_seconds = lease_seconds
        self._selecting = selecting
        self._queue = RunQueue(max_concurrent, capacity=_MAX_WAITING)
        self._expiry = Expiry(state, self._queue, keep_paused_days)
        self._workers = ThreadPoolExecutor(max_concurrent, thread_name_prefix="selection")

    @property
    def running_count(self) -> int:
        """The number of selections that are running on this host."""
        return self._queue.running

    @property
    def waiting_count(self) -> int:
        """The number of selections that wait for a slot on this host."""
        return self._queue.waiting

    @property
    def full(self) -> bool:
        """Whether a further selection would have to wait."""
        return self._queue.running >= self.max_concurrent

    @property
    def draining(self) -> bool:
        """Whether this host has stopped accepting selections."""
        return self._queue.closed

    def run_of(self, selection: str) -> Run | None:
        """Return the run of a selection that runs or waits on this host, or None if there is none."""
        return self._queue.run_of(selection)

    def place_of(self, selection: str) -> QueuePlace | None:
        """Return the place of a selection in this host's queue, or None if it does not wait here."""
        return self._queue.place_of(selection)

    def start(self, run: Run) -> bool:
        """Run a selection as soon as a slot is free, on a worker thread.

        Return False, without effect, if this host is draining or already has a run of this selection. If the
        selection belongs to another server when its turn comes, the run ends without having begun.

        Raises:
            UnavailableError: too many selections wait.
        """
        has_slot = self._queue.enter(run)
        if has_slot:
            self._launch(run)
        return has_slot is not None

    def pause(self, selection: str) -> None:
        """Take a selection out of the queue, or stop it within one batch and wait until it has stopped.

        The selection stays open and can be continued.
        """
        run = self._queue.run_of(selection)
        if run is not None:
            self.stop(run)

    def stop(self, run: Run) -> None:
        """Do with one run what `pause` does. A run that was not started yet never will be."""
        run.cancelled.set()
        if self._queue.withdraw(run):
            run.ended.set_result(None)
        elif self._queue.run_of(run.record.id) is run:
            run.ended.result()

    def cancel(self, selection: str) -> SelectionRecord:
        """Cancel a selection, whichever server runs it, and return its record.

        Raises:
            NotFoundError: there is no such selection.
        """
        record = self._catalog.cancel(selection)
        self.pause(record.id)
        return self._catalog.get(record.id)

    def take_up(self) -> None:
        """Start the selections that need a server: detached ones, and those whose servers died.

        When a run ends here, the next selection is started at once. Call this regularly for selections that
        other servers left, and for those that a fault interrupted. It logs errors.
        """
        if self.draining:
            return
        try:
            # Further ones follow when these have run.
            for record in self._catalog.orphans(2 * self.max_concurrent):
                if record.cancel_requested:
                    self._catalog.cancel(record.id)
                else:
                    self.start(Run(record))
        except ScorerError as error:
            _log.warning("%s", error)
        except Exception:
            # Only this method takes up the selections of servers that died, so it must be called again.
            _log.exception("unexpected error while looking for selections that need a server")

    def expire(self) -> None:
        """End selections that wait for callers who do not come back. Call this regularly. It logs errors."""
        self._expiry.run()

    def drain(self, seconds: float) -> None:
        """Stop accepting selections, empty the queue, and wait at most `seconds` for running ones to end."""
        for run in self._queue.close():
            run.ended.set_result(None)
        wait([run.ended for run in self._queue.running_now()], seconds)

    def interrupt(self) -> None:
        """Stop all selections within one batch. Scores are kept, and other servers can continue them."""
        self.drain(0)
        for run in self._queue.running_now():
            run.cancelled.set()
        self._workers.shutdown(wait=True)

    def _launch(self, run: Run) -> None:
        try:
            self._workers.submit(self._execute, run)
        except RuntimeError:  # The host has shut down.
            self._leave(run)

    def _leave(self, run: Run) -> None:
        """Free the slot of a run, and give it to the next one."""
        successor = self._queue.leave(run)
        run.ended.set_result(None)
        if successor is not None:
            self._launch(successor)

    def _execute(self, run: Run) -> None:
        keeper = threading.Thread(target=self._keep_lease, args=(run,), name="lease", daemon=True)
        result: SelectionResult | None = None
        outcome: Outcome = "interrupted"
        reason = ""
        try:
            if self._claim(run):
                run.begin()
                keeper.start()
                result = self._select(run)
                outcome = "succeeded" if result is not None else "interrupted"
        except SelectionCancelledError:
            outcome = self._stopped(run)
        except (*_CATALOG_ERRORS, StorageFullError) as error:
            reason = self._interrupted(run, error)
        except Exception as error:
            if is_storage_fault(error):
                reason = self._interrupted(run, storage_error(error))
            else:
                outcome, reason = "failed", self._failed(run, error)
        finally:
            try:
                if run.begun:
                    self._observer.on_ended(run, outcome, reason, result)
            finally:
                self._leave(run)
                if run.begun:
                    keeper.join()
                    give_back()
        if run.begun and run.error is None:
            # After a fault, wait for the next regular call instead: the selection would fail again at once.
            self.take_up()

    def _claim(self, run: Run) -> bool:
        return not run.cancelled.is_set() and self._catalog.claim(
            run.record.id, self._owner, self._lease_seconds
        )

    def _select(self, run: Run) -> SelectionResult | None:
        """Run the job and return its result, or None if another server has taken over the selection."""
        # A job may exclude millions of images, so nothing but this call holds it.
        job = run.open_job() if run.open_job else self._open_job(run.record)
        run.open_job = None
        if isinstance(job, PoolJob):
            run.total = job.rows

        def on_complete(shards: int) -> None:
            if not isinstance(job, PoolJob):
                self._catalog.complete_stream(run.record.id, self._owner, shards)

        progress = _RunProgress(run, (self._observer, run.observer), on_complete)
        result = job.select(settings=self._selecting, observer=progress, cancelled=run.cancelled)
        result = replace(
            result,
            selection=run.record.id,
            pool=run.record.pool_uri,
            request_id=run.record.request_id,
        )
        self._results.write(run.record.id, result)
        if not self._catalog.succeed(run.record.id, self._owner):
            return None
        if not isinstance(job, PoolJob):
            job.logs.remove()
        return result

    def _stopped(self, run: Run) -> Outcome:
        with suppress(*_CATALOG_ERRORS):
            if self._catalog.get(run.record.id).cancel_requested:
                self._catalog.confirm_cancelled(run.record.id, self._owner)
                return "cancelled"
            self._catalog.release(run.record.id, self._owner)
        return "interrupted"

    def _interrupted(self, run: Run, error: ScorerError) -> str:
        # Neither the request nor the pool is at fault: the selection stays open and can be continued.
        run.error = error
        _log.error("selection %s was interrupted: %s [%s]", run.record.id, error, error.reason)
        self._release(run)
        return error.reason

    def _release(self, run: Run) -> None:
        # If the catalog cannot be reached, the lease expires by itself.
        with suppress(*_CATALOG_ERRORS):
            self._catalog.release(run.record.id, self._owner)

    def _failed(self, run: Run, error: Exception) -> str:
        known, unexpected = error, None
        if not isinstance(known, ScorerError):
            known, unexpected = unexpected_error(error), error
        _log.error("selection %s failed: %s [%s]", run.record.id, known, known.reason, exc_info=unexpected)
        with suppress(*_CATALOG_ERRORS):
            code, message = type(known).__name__, str(known)
            self._catalog.fail(run.record.id, self._owner, code=code, reason=known.reason, message=message)
        return known.reason

    def _keep_lease(self, run: Run) -> None:
        while not wait([run.ended], self._lease_seconds / 4).done:
            try:
                kept = self._catalog.keep(run.record.id, self._owner, self._lease_seconds, run.progress)
            except _CATALOG_ERRORS as error:
                run.error = error
                kept = False
            if not kept:
                run.cancelled.set()


@dataclass(frozen=True)
class _RunProgress(SelectionObserver):
    """Counts the rows of a run and passes its progress on to observers."""

    run: Run
    observers: tuple[SelectionObserver, ...]
    complete: Callable[[int], None]

    def on_rows(self, count: int) -> None:
        self.run.read += count
        for observer in self.observers:
            observer.on_rows(count)

    def on_encoded(self, count: int) -> None:
        for observer in self.observers:
            observer.on_encoded(count)

    def on_commit(self, shard: Shard) -> None:
        for observer in self.observers:
            observer.on_commit(shard)

    def on_complete(self, shards: int) -> None:
        self.complete(shards)
