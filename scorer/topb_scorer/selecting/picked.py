"""What selecting from a score log gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from topb.results import Accounts, Pick


@dataclass(frozen=True)
class Picked:
    """Ranked picks, and what became of every row of the log."""

    picks: tuple[Pick, ...]
    """In rank order."""
    accounts: Accounts
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the batch as a whole, by name, if the strategy reports any."""
