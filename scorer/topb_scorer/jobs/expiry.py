"""End selections that wait for callers who do not come back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from topb_scorer.errors import NotFoundError, ScorerError
from topb_scorer.jobs.run_queue import RunQueue
from topb_scorer.jobs.state_directory import StateDirectory, remove_stream

_log = logging.getLogger(__name__)

_AT_ONCE = 100
_DAY = 86_400


@dataclass
class Expiry:
    """Ends selections that no caller has continued for some days, and removes the scores of their streams.

    The days are counted in the catalog, so they go on while no server runs.
    """

    state: StateDirectory
    queue: RunQueue
    days: float
    _touched: float = field(default=0.0, init=False)

    def run(self) -> None:
        """End the selections whose time is up. Call this regularly. It logs errors."""
        try:
            self._touch()
            self._end()
        except ScorerError as error:
            _log.warning("%s", error)
        except Exception:
            # Nothing else ends these selections, so this method must be called again.
            _log.exception("unexpected error while looking for selections without a caller")

    def _touch(self) -> None:
        """Note in the catalog that the selections in the queue have a caller, who waits."""
        if time.monotonic() - self._touched > self.days * _DAY / 4:
            self._touched = time.monotonic()
            if waiting := self.queue.waiting_now():
                self.state.catalog.touch([run.record.id for run in waiting])

    def _end(self) -> None:
        moment = time.time() - self.days * _DAY
        error = NotFoundError(
            f"no caller has continued the selection for {self.days:g} days; use a new request id",
            reason="SELECTION_EXPIRED",
        )
        for id_ in self.state.catalog.abandoned(moment, _AT_ONCE):
            if self.queue.run_of(id_) is None and self.state.catalog.expire(id_, moment, error):
                remove_stream(self.state.path, id_)
                _log.info("selection %s has expired", id_)
