"""Wait for a condition that another process or thread makes true."""

from __future__ import annotations

import time
from collections.abc import Callable


def once(holds: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until `holds()` is true, and fail if it is still false after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"the condition is still false after {seconds} s"
        time.sleep(0.02)
