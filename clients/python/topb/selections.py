"""The description of a selection on a server."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from topb.progress import Progress
from topb.results import Accounts


class SelectionState(StrEnum):
    """The state of a selection."""

    UNSPECIFIED = "unspecified"
    """The selection is in a state that the server or this version of the client does not know."""
    PENDING = "pending"
    """The selection waits for a server, or for its caller to repeat the request or to send the pool."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether this state is final."""
        return self in {SelectionState.SUCCEEDED, SelectionState.FAILED, SelectionState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Selection:
    """One selection at the time of the call."""

    id: str
    """The id that the server gave it."""
    request_id: str
    """The caller's id of the request. Another request with this id returns the same selection."""
    state: SelectionState
    """Its state."""
    model: str
    """Id of the model that it uses."""
    strategy: str
    """Name of the query strategy."""
    budget: int
    """Number of picks requested."""
    pool_uri: str
    """URI of the pool, or empty if the caller sends the pool."""
    progress: Progress
    """Its progress."""
    create_time: datetime.datetime | None
    """When it was requested, in UTC."""
    update_time: datetime.datetime | None
    """When the server last updated it, in UTC."""
    end_time: datetime.datetime | None
    """When it ended, in UTC, or None if it has not ended."""
    pick_count: int | None
    """Number of picks, or None if it has no result."""
    accounts: Accounts | None
    """Row counts by outcome, or None if it has no result."""
    error_reason: str
    """Why it failed, or why its result cannot be read, in UPPER_SNAKE_CASE; otherwise empty."""
    error_message: str
    """Why it failed, or why its result cannot be read, in words; otherwise empty."""

    def to_dict(self) -> dict[str, Any]:
        """Return the selection as plain lists, dicts, strings and numbers, with times in ISO 8601."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("create_time", "update_time", "end_time"):
            fields[name] = fields[name] and fields[name].isoformat()
        fields["progress"] = dataclasses.asdict(self.progress)
        fields["accounts"] = self.accounts and self.accounts.to_dict()
        return fields
