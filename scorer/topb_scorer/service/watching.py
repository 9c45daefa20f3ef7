"""Follow selections until they end, whichever server runs them. Start them here if no server runs them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator

from topb.progress import Progress
from topb.selections import SelectionState
from topb_scorer import errors
from topb_scorer.errors import NewerVersionError, ScorerError, SelectionCancelledError, UnavailableError
from topb_scorer.jobs.catalog import SelectionCatalog
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import PoolJob
from topb_scorer.service.run_events import PROGRESS_SECONDS, RunEvents


class Watchers:
    """Follows selections for callers, and stops those that no caller waits for any more."""

    def __init__(self, catalog: SelectionCatalog, host: SelectionHost) -> None:
        self._catalog = catalog
        self._host = host
        self._waiting: Counter[str] = Counter()

    async def follow(
        self, record: SelectionRecord, job: PoolJob | None, *, detached: bool
    ) -> AsyncGenerator[Progress, None]:
        """Yield progress until the selection has succeeded.

        Args:
            record: the selection.
            job: its job if it is already open.
            detached: whether the selection continues if this generator is closed early. Otherwise the
                selection stops within one batch, unless another caller waits for it.

        Raises:
            ScorerError: the selection failed or was cancelled, or this server is shutting down.
        """
        self._waiting[record.id] += 1
        events: RunEvents | None = None
        reported_rows = -1
        try:
            while True:
                record = await asyncio.to_thread(self._catalog.get, record.id)
                if has_succeeded(record):
                    return
                run = self._host.run_of(record.id)
                if run is None and not self._host.draining and (job is not None or record.pool_uri):
                    run = await asyncio.to_thread(self._host.start, record, job)
                if self._host.draining and (run is None or run.cancelled.is_set()):
                    raise draining()
                progress = (run or record).progress
                if progress.read != reported_rows:
                    reported_rows = progress.read
                    yield progress
                if run is None:
                    await asyncio.sleep(PROGRESS_SECONDS)
                    continue
                if events is None or events.run is not run:
                    events = RunEvents(run)
                await events.wait()
                # Raise storage errors at once. If the catalog did not answer, the loop reads it again.
                if run.ended.done() and run.error and not isinstance(run.error, UnavailableError):
                    raise run.error
        finally:
            self._waiting[record.id] -= 1
            if not self._waiting[record.id]:
                del self._waiting[record.id]
                if not detached:
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
