"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def once(holds: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until `holds()` is true, and fail if it is still false after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.02)
