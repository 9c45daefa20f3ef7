"""A line on the terminal that shows the progress of a selection."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from topb.progress import Progress, QueuePlace

_SECONDS_BETWEEN = 0.1
_ERASE_LINE = "\r\x1b[K"


@contextlib.contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a callback that shows the latest progress in place, at most ten times a second.

    The line is erased at the end. Yield None if standard error is no terminal, or if `quiet`.
    """
    terminal, shown_at = sys.stderr, -math.inf
    if quiet or not terminal.isatty():
        yield None
        return

    def show(progress: Progress) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= _SECONDS_BETWEEN:
            shown_at = now
            line = progress_text(progress)[: shutil.get_terminal_size().columns - 1]
            print(_ERASE_LINE + line, end="", file=terminal, flush=True)

    try:
        yield show
    finally:
        print(_ERASE_LINE, end="", file=terminal, flush=True)


def progress_text(progress: Progress) -> str:
    """Return the progress in words, such as `12,000 of 60,000 images (20 %), 3,000 images/s, 16 s to go`.

    A selection that waits for the server has a place instead, such as `place 3 of 12 in the queue`.
    """
    if progress.queue is not None:
        return place_text(progress.queue)
    rate = progress.read / progress.elapsed_seconds if progress.elapsed_seconds > 0 else 0.0
    if progress.total <= 0:
        parts = [f"{progress.read:,} images"]
    else:
        share = 100 * progress.read / progress.total
        parts = [f"{progress.read:,} of {progress.total:,} images ({share:.0f} %)"]
    if rate > 0:
        parts.append(f"{rate:,.0f} images/s")
        if progress.total > progress.read:
            parts.append(f"{(progress.total - progress.read) / rate:,.0f} s to go")
    return ", ".join(parts)


def place_text(place: QueuePlace) -> str:
    """Return a place in a queue in words."""
    return f"place {place.position:,} of {place.length:,} in the queue"
