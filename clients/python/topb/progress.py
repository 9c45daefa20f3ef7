"""The progress of a selection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The place of a selection among those that wait for a server."""

    position: int
    """1 for the selection that starts next."""
    length: int
    """Number of selections that wait."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many rows of its pool a selection has read, or at which place of a queue it waits."""

    read: int
    """Rows of the pool read so far."""
    total: int
    """All rows of the pool, or 0 if their number is unknown, as for an iterable without a length."""
    elapsed_seconds: float
    """Seconds since the selection began, measured by the scorer."""
    queue: QueuePlace | None = None
    """Its place in the server's queue, or None if it does not wait there."""
