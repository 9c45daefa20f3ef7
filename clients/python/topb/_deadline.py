"""The deadline of a call, which covers all its attempts."""

from __future__ import annotations

import time


class Deadline:
    """A timeout that starts now.

    Attributes:
        timeout: The timeout in seconds, or None.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """The remaining time in seconds, at least 0; None without a timeout."""
        return None if self._at is None else max(self._at - time.monotonic(), 0.0)

    def shortened(self, seconds: float) -> float:
        """Return `seconds`, or the remaining time if that is shorter."""
        left = self.left
        return seconds if left is None else min(seconds, left)
