"""What a selection is, and where it stands, as the catalog keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from topb.selections import SelectionState


@dataclass(frozen=True)
class NewSelection:
    """What a selection is, for life."""

    request_id: str
    """What the caller repeats it by; empty: drawn."""
    request: bytes
    """The whole request, as whoever runs it reads it."""
    model: str
    strategy: str
    budget: int
    pool_uri: str
    """Empty where the caller sends the pool."""
    detached: bool
    """Whether it runs on when its caller goes."""


@dataclass(frozen=True)
class SelectionRecord:
    """A selection as the catalog holds it; times are seconds since the epoch."""

    id: str
    request_id: str
    request: bytes
    request_digest: str
    model: str
    strategy: str
    budget: int
    pool_uri: str
    detached: bool
    state: SelectionState
    owner: str
    """The server that works on it, or that did last."""
    lease_until: float
    cancel_requested: bool
    read: int
    total: int
    elapsed_seconds: float
    stream_chunks: int | None
    """How many chunks the pool has, once its caller said that it is complete."""
    created: float
    updated: float
    ended: float | None
    error_code: str
    error_reason: str
    error_message: str
