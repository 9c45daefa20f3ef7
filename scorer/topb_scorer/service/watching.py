"""Follows a selection until it ends, wherever it runs, and has it run here where nobody does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator

from topb.progress import Progress
from topb.selections import SelectionState
from topb_scorer import errors
from topb_scorer.errors import ScorerError, SelectionCancelledError, UnavailableError
from topb_scorer.jobs.host import SelectionHost
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.run import Job
from topb_scorer.jobs.state_directory import StateDirectory

_PROGRESS_SECONDS = 0.25
_POLL_SECONDS = 0.01


class Watchers:
    """The callers that wait for selections, by selection."""

    def __init__(self, state: StateDirectory, host: SelectionHost) -> None:
        self._state = state
        self._host = host
        self._waiting: Counter[str] = Counter()

    async def follow(
        self, record: SelectionRecord, job: Job | None, *, stays: bool
    ) -> AsyncGenerator[Progress, None]:
        """Yields progress until the selection has succeeded.

        Args:
            record: of the selection.
            job: what it asks for, where that is open already.
            stays: whether the selection runs on though this generator is closed before its end. Otherwise
                it stops within one batch, unless another caller waits for it.

        Raises:
            ScorerError: the selection failed or was cancelled, or this server drains.
        """
        self._waiting[record.id] += 1
        told = Progress(read=-1, total=0, elapsed_seconds=0.0)
        try:
            while True:
                record = await asyncio.to_thread(self._state.catalog.get, record.id)
                if record.state is SelectionState.SUCCEEDED:
                    return
                if record.state.ended:
                    raise failure_of(record)
                run = self._host.run_of(record.id)
                if run is None and not self._host.draining and (job is not None or record.pool_uri):
                    run = await asyncio.to_thread(self._host.start, record, job)
                if self._host.draining and (run is None or run.cancelled.is_set()):
                    raise draining()
                if run is not None:
                    progress = Progress(run.read, run.total, run.elapsed_seconds)
                else:
                    progress = Progress(record.read, record.total, record.elapsed_seconds)
                if progress.read != told.read:
                    told = progress
                    yield progress
                waited = time.monotonic()
                while time.monotonic() - waited < _PROGRESS_SECONDS and not (run and run.ended.is_set()):
                    await asyncio.sleep(_POLL_SECONDS)
                # Of a catalog that did not answer the next look tells more; a broken storage stays so.
                if run and run.ended.is_set() and run.error and not isinstance(run.error, UnavailableError):
                    raise run.error
        finally:
            self._waiting[record.id] -= 1
            if not self._waiting[record.id]:
                del self._waiting[record.id]
                if not stays:
                    # Also while this call is being cancelled, the worker is seen to its end.
                    await asyncio.shield(asyncio.to_thread(self._host.pause, record.id))


def failure_of(record: SelectionRecord) -> ScorerError:
    """The error with which a selection ended."""
    if record.state is SelectionState.CANCELLED:
        return SelectionCancelledError()
    kind = getattr(errors, record.error_code, ScorerError)
    error: ScorerError = kind(record.error_message, reason=record.error_reason, selection=record.id)
    return error


def draining() -> UnavailableError:
    """What a caller is told when the server goes."""
    return UnavailableError(
        "this server is going down; ask again under the same request id and another one carries on",
        reason="SERVER_DRAINING",
    )
