"""The progress of a selection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How many rows of its pool a selection has read."""

    read: int
    """Rows of the pool read so far."""
    total: int
    """All rows of the pool, or 0 if their number is unknown."""
    elapsed_seconds: float
    """Seconds since the selection began, measured by the scorer."""
