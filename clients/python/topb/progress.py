"""How far a selection has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a selection has come; later ones replace earlier ones."""

    read: int
    """Rows of the pool read so far."""
    total: int
    """Rows of the pool in all, 0 where that is not known."""
    elapsed_seconds: float
    """Since the selection began, on the side that scores."""
