"""Follow selections until they end, whichever server runs them. Start them here if no server runs them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace

from topb.progress import Progress
from topb.selections import SelectionState
from topb_scorer import errors
from topb_scorer.errors import NewerVersionError, ScorerError, SelectionCancelledError, UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import PoolJob, Run
from topb_scorer.service.run_events import PROGRESS_SECONDS, RunEvents

# How often a call whose selection waits in the queue looks whether another server has ended the selection.
_WAITING_SECONDS = 2.0


class Watchers:
    """Follows selections for callers, and stops those that no caller waits for any more."""

    def __init__(self, catalog: SelectionCatalog, host: SelectionHost) -> None:
        self._catalog = catalog
        self._host = host
        self._waiting: Counter[str] = Counter()

    def run(self, record: SelectionRecord, job: PoolJob | None) -> Run:
        """Return a run of a selection, to start.

        Args:
            record: the selection.
            job: its job if it is already open. If the selection has to wait, the job is opened again when its
                turn comes, because a waiting selection should take little memory.
        """
        return Run(record, None if job is None or self._host.full else lambda: job)

    async def follow(
        self, record: SelectionRecord, job: PoolJob | None, *, detached: bool
    ) -> AsyncGenerator[Progress, None]:
        """Yield progress, or places in the queue, until the selection has succeeded.

        Args:
            record: the selection.
            job: its job if it is already open.
            detached: whether the selection continues if this generator is closed early. Otherwise the
                selection stops within one batch, unless another caller waits for it.

        Raises:
            ScorerError: the selection failed or was cancelled, or this server is shutting down or overloaded.
        """
        self._waiting[record.id] += 1
        started: Run | None = None
        events: RunEvents | None = None
        reported: Progress | None = None
        try:
            while True:
                record = await asyncio.to_thread(self._catalog.get, record.id)
                read_at = time.monotonic()
                if has_succeeded(record):
                    return
                run = self._host.run_of(record.id)
                if run is None and record.free and (job is not None or record.pool_uri):
                    started, job = self.run(record, job), None
                    if await asyncio.to_thread(self._host.start, started):
                        run = started
                    else:
                        run = self._host.run_of(record.id)
                if self._host.draining and (run is None or run.cancelled.is_set()):
                    raise draining()
                while True:
                    queue = self._host.place_of(record.id)
                    progress = replace((run or record).progress, queue=queue)
                    if reported is None or (progress.read, queue) != (reported.read, reported.queue):
                        reported = progress
                        yield progress
                    if run is None:
                        await asyncio.sleep(PROGRESS_SECONDS)
                        break
                    if events is None or events.run is not run:
                        events = RunEvents(run)
                    await events.wait()
                    late = time.monotonic() - read_at >= _WAITING_SECONDS
                    if run.begun or run.ended.done() or late:
                        break
                fault = run.error if run is not None and run.ended.done() else None
                # Raise storage errors at once. If the catalog failed during the run, read it again.
                if fault is not None and not (run and run.begun and isinstance(fault, UnavailableError)):
                    raise fault
        finally:
            self._waiting[record.id] -= 1
            if not self._waiting[record.id]:
                del self._waiting[record.id]
                if not detached:
                    if started is not None:
                        # It may be on its way to the host, if this call was cancelled just then.
                        started.cancelled.set()
                    # Wait for the worker even if this call is being cancelled.
                    await asyncio.shield(asyncio.to_thread(self._host.pause, record.id))


def has_succeeded(record: SelectionRecord) -> bool:
    """Return True if the selection has succeeded, and False if it is still open.

    Raises:
        ScorerError: the selection failed or was cancelled, or this version does not know its state.
    """
    if record.state is SelectionState.CANCELLED:
        raise SelectionCancelledError
    if record.state is SelectionState.FAILED:
        kind = getattr(errors, record.error_code, ScorerError)
        raise kind(record.error_message, reason=record.error_reason, selection=record.id)
    if record.state is SelectionState.UNSPECIFIED:
        raise NewerVersionError(
            f"selection {record.id} is in a state that this version of topb does not know; ask a server of a "
            "newer version",
            reason="SELECTION_STATE_UNKNOWN",
            selection=record.id,
        )
    return record.state is SelectionState.SUCCEEDED


def draining() -> UnavailableError:
    """Return the error for callers of a server that is shutting down."""
    return UnavailableError(
        "this server is shutting down; repeat the request with the same request id to continue elsewhere",
        reason="SERVER_DRAINING",
    )
