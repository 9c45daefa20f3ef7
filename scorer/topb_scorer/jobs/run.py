"""A selection that runs here: what it works on, how far it has come, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from topb.progress import Progress
from topb.results import SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import ScorerError
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.score_log import ScoreLog
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool, select_from_stream
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.selecting.spec import SelectionSpec

Outcome = Literal["succeeded", "failed", "cancelled", "interrupted"]
"""How a run ended. After an interrupted run the selection is still open, for this server or another."""


class SelectingOptions(TypedDict):
    """What a host decides about the selections that it runs."""

    settings: SelectingSettings
    observer: SelectionObserver
    cancelled: threading.Event


@dataclass(frozen=True)
class PoolJob:
    """A selection from a pool that this server reads."""

    spec: SelectionSpec
    engine: LocalEngine
    log: ScoreLog
    shards: Sequence[Shard]

    @property
    def total(self) -> int:
        """How many rows the pool has."""
        return sum(shard.rows for shard in self.shards)

    def select(self, **options: Unpack[SelectingOptions]) -> SelectionResult:
        """Score what the log does not hold yet, and select."""
        return select_from_pool(self.spec, self.engine, self.shards, self.log, **options)


@dataclass(frozen=True)
class StreamJob:
    """A selection from a pool that the caller sends. Its shards can be read once only."""

    spec: SelectionSpec
    engine: LocalEngine
    log: ScoreLog
    """Belongs to this selection alone, and is removed once the selection has succeeded."""
    shards: Iterable[Shard | None] = ()
    """The shards that the log does not hold yet; None when the next one is late."""
    total: int = 0
    """The number of rows is not known."""

    def select(self, **options: Unpack[SelectingOptions]) -> SelectionResult:
        """Score the shards as they arrive, and select."""
        return select_from_stream(self.spec, self.engine, self.shards, self.log, **options)


Job = PoolJob | StreamJob


@dataclass
class Run:
    """One attempt to run a selection on this server."""

    record: SelectionRecord
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set to stop the run within one batch."""
    ended: Future[None] = field(default_factory=Future)
    """Done when the run has ended, so that threads and coroutines can wait for it."""
    started: float = field(default_factory=time.monotonic)
    read: int = 0
    total: int = 0
    """Rows of the pool, 0 if unknown."""
    error: ScorerError | None = None
    """Why the run was interrupted, if neither the caller nor an operator asked for it."""

    @property
    def progress(self) -> Progress:
        """How many rows were read, and the seconds since the selection was claimed."""
        return Progress(self.read, self.total, time.monotonic() - self.started)


class RunObserver(SelectionObserver):
    """Receives the progress of every selection that a host runs, on the threads that run them."""

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        """Note that a run has ended, with the reason of the error, if any, and the result if it succeeded."""
