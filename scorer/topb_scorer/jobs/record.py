"""Define the records of selections in the catalog."""

from __future__ import annotations

import time
from dataclasses import dataclass

from topb.progress import Progress
from topb.selections import SelectionState


@dataclass(frozen=True)
class _Constants:
    """The part of a selection that never changes, apart from its request."""

    request_id: str
    """The id that the caller gave the request, so that it can be repeated. If empty, one is generated."""
    model: str
    strategy: str
    budget: int
    pool_uri: str
    """The URI of the pool; empty if the caller sends the pool."""
    detached: bool
    """Whether the selection continues after its caller has disconnected."""


@dataclass(frozen=True)
class NewSelection(_Constants):
    """A selection that is not in the catalog yet."""

    request: bytes
    """The serialized request. The server that runs the selection reads it again."""


@dataclass(frozen=True)
class SelectionRecord(_Constants):
    """A selection in the catalog. Times are seconds since the epoch.

    The request is read only when the selection runs (`StateDirectory.request_of`), because it may be large.
    """

    id: str
    request_digest: str
    state: SelectionState
    owner: str
    """The server that runs the selection, or that ran it when it ended."""
    lease_until: float
    cancel_requested: bool
    read: int
    total: int
    elapsed_seconds: float
    stream_chunks: int | None
    """The number of chunks in the pool; None until the caller has sent the whole pool."""
    created: float
    updated: float
    ended: float | None
    error_code: str
    error_reason: str
    error_message: str

    @property
    def free(self) -> bool:
        """Whether a server may claim the selection: none runs it, or the lease of its server has expired."""
        if self.state is SelectionState.RUNNING:
            return self.lease_until < time.time()
        return self.state is SelectionState.PENDING

    @property
    def progress(self) -> Progress:
        """The progress at the last renewal of the lease."""
        return Progress(self.read, self.total, self.elapsed_seconds)
