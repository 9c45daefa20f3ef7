"""Let runs wait for a free slot, in the order in which they came."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left

from topb.progress import QueuePlace
from topb_scorer.errors import UnavailableError
from topb_scorer.jobs.run import Run


class RunQueue:
    """The runs of one server: those that have a slot, and those that wait for one. It is safe for threads."""

    def __init__(self, slots: int, *, capacity: int) -> None:
        """Create an empty queue.

        Args:
            slots: the number of runs that may have a slot at once.
            capacity: the number of runs that may wait at once.
        """
        self.slots = slots
        self._capacity = capacity
        self._lock = threading.Lock()
        self._running: dict[str, Run] = {}
        # In the order of the queue, with a ticket each. The sorted tickets tell the place of a run.
        self._waiting: dict[str, tuple[int, Run]] = {}
        self._tickets: list[int] = []
        self._next_ticket = itertools.count()
        self._closed = False

    @property
    def running(self) -> int:
        """The number of runs that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of runs that wait for a slot."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether the queue takes no further runs."""
        return self._closed

    def run_of(self, selection: str) -> Run | None:
        """Return the run of a selection, whether it has a slot or waits, or None if there is none."""
        with self._lock:
            waiting = self._waiting.get(selection)
            return self._running.get(selection) if waiting is None else waiting[1]

    def place_of(self, selection: str) -> QueuePlace | None:
        """Return the place at which a selection waits, or None if it does not wait here."""
        with self._lock:
            waiting = self._waiting.get(selection)
            if waiting is None:
                return None
            return QueuePlace(bisect_left(self._tickets, waiting[0]) + 1, len(self._tickets))

    def enter(self, run: Run) -> bool | None:
        """Add a run, and return whether it has a slot.

        Return None, without effect, if the run was cancelled, if the queue is closed, or if it has a run of
        the same selection.

        Raises:
            UnavailableError: too many runs wait already.
        """
        selection = run.record.id
        with self._lock:
            is_here = selection in self._running or selection in self._waiting
            if self._closed or is_here or run.cancelled.is_set():
                return None
            if len(self._running) < self.slots:
                self._running[selection] = run
                return True
            if len(self._waiting) >= self._capacity:
                raise UnavailableError(
                    f"{len(self._waiting)} selections wait for this server, which is its limit; try again "
                    "later",
                    reason="SELECTIONS_BUSY",
                )
            ticket = next(self._next_ticket)
            self._waiting[selection] = (ticket, run)
            self._tickets.append(ticket)
            return False

    def withdraw(self, run: Run) -> bool:
        """Remove a run that waits. Return False, without effect, if it does not wait."""
        with self._lock:
            waiting = self._waiting.get(run.record.id)
            if waiting is None or waiting[1] is not run:
                return False
            self._take_out(run.record.id)
            return True

    def leave(self, run: Run) -> Run | None:
        """Free the slot of a run, and return the run that gets it, or None if none waits."""
        with self._lock:
            del self._running[run.record.id]
            if not self._waiting:
                return None
            successor = self._take_out(next(iter(self._waiting)))
            self._running[successor.record.id] = successor
            return successor

    def close(self) -> list[Run]:
        """Take no further runs. Remove the runs that wait and return them."""
        with self._lock:
            self._closed = True
            return [self._take_out(selection) for selection in list(self._waiting)]

    def waiting_now(self) -> list[Run]:
        """Return the runs that wait, in the order of the queue."""
        with self._lock:
            return [run for _, run in self._waiting.values()]

    def running_now(self) -> list[Run]:
        """Return the runs that have a slot."""
        with self._lock:
            return list(self._running.values())

    def _take_out(self, selection: str) -> Run:
        ticket, run = self._waiting.pop(selection)
        del self._tickets[bisect_left(self._tickets, ticket)]
        return run
