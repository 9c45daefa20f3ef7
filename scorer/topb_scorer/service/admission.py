"""Which selections may run now: so many at once, and none while the server drains."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from topb_scorer.errors import SelectionCancelledError
from topb_scorer.service.errors import UnavailableError

_RETRY_SECONDS = 5.0


class Admission:
    """Counts the selections that run, and stops them when the server goes."""

    def __init__(self, max_concurrent: int) -> None:
        self.max_concurrent = max_concurrent
        self._running: set[threading.Event] = set()
        self._draining = False
        self._interrupted = False

    @contextmanager
    def admitted(self) -> Iterator[threading.Event]:
        """The flag that cancels this selection, for as long as it runs.

        Raises:
            UnavailableError: the server drains, or runs as many as it may; or it went before this one ended.
        """
        if self._draining:
            raise _draining()
        if len(self._running) >= self.max_concurrent:
            raise UnavailableError(
                f"{len(self._running)} selections run, as many as this server runs at once",
                reason="SELECTIONS_BUSY",
                retry_seconds=_RETRY_SECONDS,
            )
        cancelled = threading.Event()
        self._running.add(cancelled)
        try:
            yield cancelled
        except SelectionCancelledError as error:
            if self._interrupted:
                raise _draining() from error
            raise
        finally:
            self._running.discard(cancelled)

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running)

    def drain(self) -> None:
        """From here on no selection is admitted."""
        self._draining = True

    def interrupt(self) -> None:
        """Stops what runs, each within one batch."""
        self._interrupted = True
        for cancelled in self._running:
            cancelled.set()


def _draining() -> UnavailableError:
    return UnavailableError(
        "this server is going down; ask again, another one will answer",
        reason="SERVER_DRAINING",
        retry_seconds=_RETRY_SECONDS,
    )
