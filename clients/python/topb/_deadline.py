"""How long a call may take in all, however many times it is made."""

from __future__ import annotations

import time


class Deadline:
    """A timeout that runs from now on.

    Attributes:
        timeout: in seconds, None where there is none.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds until it is over, at least 0; None where there is none."""
        return None if self._at is None else max(self._at - time.monotonic(), 0.0)

    def shortened(self, seconds: float) -> float:
        """So many seconds, or what is left where that is less."""
        left = self.left
        return seconds if left is None else min(seconds, left)
