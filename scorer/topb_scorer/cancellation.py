"""Stop work that was cancelled: its loops call a check between their steps.

A cancel, a deadline, a lost caller and a draining server all set one event. It is passed down, as a `Check`,
to every loop whose length depends on the data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from topb_scorer.errors import SelectionCancelledError

Check = Callable[[], None]
"""Raises SelectionCancelledError if the work was cancelled."""

_Step = TypeVar("_Step")


def check_of(cancelled: threading.Event) -> Check:
    """Return a check that raises SelectionCancelledError once `cancelled` is set."""

    def check() -> None:
        if cancelled.is_set():
            raise SelectionCancelledError

    return check


def never_cancelled() -> None:
    """Do nothing: the check of work that cannot be cancelled."""


def checked(steps: Iterable[_Step], check: Check) -> Iterator[_Step]:
    """Yield each of `steps`, calling `check` before it is processed."""
    for step in steps:
        check()
        yield step
