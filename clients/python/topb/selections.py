"""What a selection is while it runs and after, as a server keeps it."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from topb.progress import Progress
from topb.results import Accounts


class SelectionState(StrEnum):
    """Where a selection stands."""

    PENDING = "pending"
    """Waits for a server, or for its caller to send the pool or to come back."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self not in {SelectionState.PENDING, SelectionState.RUNNING}


@dataclass(frozen=True, slots=True)
class Selection:
    """One selection, as it stood when the server was asked."""

    id: str
    """The server's name for it."""
    request_id: str
    """The caller's name for it: what it is repeated by."""
    state: SelectionState
    """Where it stands."""
    model: str
    """Id of the model that it is pinned to."""
    strategy: str
    """Name of the query strategy."""
    budget: int
    """How many picks were asked for."""
    pool_uri: str
    """Of the pool; empty where the caller sends it."""
    progress: Progress
    """How far it has come."""
    create_time: datetime.datetime | None
    """When it was asked for, in UTC."""
    update_time: datetime.datetime | None
    """When the server last noted something about it, in UTC."""
    end_time: datetime.datetime | None
    """When it ended, in UTC; None while it has not."""
    pick_count: int | None
    """How many picks it has, where it succeeded."""
    accounts: Accounts | None
    """What became of each row of the pool, where it succeeded."""
    error_reason: str
    """Why it failed, in UPPER_SNAKE_CASE; else empty."""
    error_message: str
    """Why it failed, for a person; else empty."""

    def to_dict(self) -> dict[str, Any]:
        """The selection as plain lists, dicts, strings and numbers; times as ISO 8601 has them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("create_time", "update_time", "end_time"):
            fields[name] = fields[name] and fields[name].isoformat()
        fields["progress"] = dataclasses.asdict(self.progress)
        fields["accounts"] = self.accounts and self.accounts.to_dict()
        return fields
