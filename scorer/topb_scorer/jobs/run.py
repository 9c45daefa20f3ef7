"""Define jobs, which describe the work of a selection, and runs, which are attempts to do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from topb.progress import Progress
from topb.results import SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import ScorerError
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.model_logs import ModelLogs
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool, select_from_stream
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.selecting.spec import SelectionSpec

Outcome = Literal["succeeded", "failed", "cancelled", "interrupted"]
"""How a run ended. After an interrupted run the selection is still open, and any server can continue it."""


class SelectingOptions(TypedDict):
    """The arguments that a host passes to the `select` method of a job."""

    settings: SelectingSettings
    observer: SelectionObserver
    cancelled: threading.Event


@dataclass(frozen=True)
class PoolJob:
    """A selection from a pool that this server reads."""

    spec: SelectionSpec
    engine: LocalEngine
    logs: ModelLogs
    shards: Sequence[Shard]

    @property
    def rows(self) -> int:
        """The number of rows in the pool."""
        return sum(shard.rows for shard in self.shards)

    def select(self, **options: Unpack[SelectingOptions]) -> SelectionResult:
        """Score the rows that are not in the logs yet, then select."""
        return select_from_pool(self.spec, self.engine, self.shards, self.logs, **options)


@dataclass(frozen=True)
class StreamJob:
    """A selection from a pool that the caller sends. Its shards can be read only once."""

    spec: SelectionSpec
    engine: LocalEngine
    logs: ModelLogs
    """The logs of this selection only. They are removed when the selection has succeeded."""
    shards: Iterable[Shard | None] = ()
    """Shards that are not in the logs yet. None means that no shard is ready: run the partial batch now."""

    def select(self, **options: Unpack[SelectingOptions]) -> SelectionResult:
        """Score the shards as they arrive, then select."""
        return select_from_stream(self.spec, self.engine, self.shards, self.logs, **options)


Job = PoolJob | StreamJob


@dataclass
class Run:
    """One attempt to run a selection on this server. It begins when a slot is free."""

    record: SelectionRecord
    open_job: Callable[[], Job] | None = None
    """Called when the run begins, on its thread; None to open the job that the record describes. It raises
    ScorerError if the selection cannot be run."""
    observer: SelectionObserver = field(default_factory=SelectionObserver)
    """Receives the progress of this run."""
    begun: bool = field(default=False, init=False)
    """Whether the run has a slot and has claimed its selection."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set to stop the run within one batch."""
    ended: Future[None] = field(default_factory=Future)
    """Done when the run has ended or has left the queue, so that threads and coroutines can wait for it."""
    started: float = field(default_factory=time.monotonic)
    read: int = 0
    total: int = 0
    """The number of rows in the pool; 0 if it is unknown."""
    error: ScorerError | None = None
    """The error that interrupted the run; None if the caller or an operator stopped it."""

    def begin(self) -> None:
        """Note that the run has claimed its selection."""
        self.started = time.monotonic()
        self.begun = True

    @property
    def progress(self) -> Progress:
        """The number of rows read, and the time since the run began. Before, that of the run before it."""
        if not self.begun:
            return self.record.progress
        return Progress(self.read, self.total, time.monotonic() - self.started)


class RunObserver(SelectionObserver):
    """Receives the progress of every selection that a host runs, on the threads that run them."""

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        """Handle the end of a run.

        Args:
            run: the run.
            outcome: the outcome of the run.
            reason: the reason of the error; empty if there was none.
            result: the result if the run succeeded, otherwise None.
        """
