"""What running a selection takes, how far it is, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from topb.results import SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import ScorerError
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.score_log import ScoreLog
from topb_scorer.selecting.spec import SelectionSpec

Outcome = Literal["succeeded", "failed", "cancelled", "interrupted"]
"""How a selection stopped running here; an interrupted one is open still, here or at another server."""


@dataclass(frozen=True)
class Job:
    """What running a selection takes."""

    spec: SelectionSpec
    engine: LocalEngine
    shards: Iterable[Shard | None]
    log: ScoreLog
    total: int
    """Rows of the pool, 0 where that is not known."""
    sent_by_caller: bool = False
    """Whether the shards come from a caller: they cannot be read a second time."""


@dataclass
class Run:
    """A selection that runs here."""

    record: SelectionRecord
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)
    read: int = 0
    total: int = 0
    error: ScorerError | None = None
    """Why it stopped here unasked, though the selection is open still."""

    @property
    def elapsed_seconds(self) -> float:
        """Since it was claimed."""
        return time.monotonic() - self.started


class Observer(Protocol):
    """Is told what the selections do; called from their threads."""

    def on_rows(self, count: int) -> None:
        """Rows were done: scored, or found in the score log."""

    def on_commit(self, shard: Shard) -> None:
        """A shard was scored, and is durable."""

    def on_ended(self, run: Run, outcome: Outcome, reason: str, result: SelectionResult | None) -> None:
        """A selection stopped running here; `reason` is an error's, or empty, `result` where it succeeded."""
