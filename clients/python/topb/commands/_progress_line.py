"""A line on the terminal that shows the progress of a selection."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Self, TextIO

from topb.progress import Progress

_SECONDS_BETWEEN = 0.1
_ERASE_LINE = "\r\x1b[K"


class ProgressLine:
    """Shows the latest progress in place, and erases it at the end."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown_at is not None:
            self._terminal.write(_ERASE_LINE)
            self._terminal.flush()

    def __call__(self, progress: Progress) -> None:
        """Show the progress, at most ten times a second."""
        now = time.monotonic()
        if self._shown_at is not None and now - self._shown_at < _SECONDS_BETWEEN:
            return
        self._shown_at = now
        width = shutil.get_terminal_size().columns - 1
        self._terminal.write(_ERASE_LINE + progress_text(progress)[:width])
        self._terminal.flush()


def progress_text(progress: Progress) -> str:
    """Return the progress in words, such as `12,000 of 60,000 images (20 %), 3,000 images/s, 16 s to go`."""
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
