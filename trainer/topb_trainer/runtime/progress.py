"""Show the progress of long loops: as a bar on a terminal, and as lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_LOG_SECONDS = 10.0
"""Time between two lines where standard error is not a terminal."""
_LOG_FORMAT = "{desc}: {n_fmt} of {total_fmt} ({unit}) after {elapsed}, {remaining} left{postfix}"


def bar(
    items: Iterable[Item], description: str, unit: str, *, show: bool, total: int | None = None
) -> tqdm[Item]:
    """Return `items`, and show on standard error how many of them are done, if `show` is true.

    A terminal gets a progress bar. A log gets a line every ten seconds and at the end; a loop that is shorter
    gets none.
    """
    log: dict[str, Any] = {}
    if not sys.stderr.isatty():
        log = {
            "file": _Lines(),
            "bar_format": _LOG_FORMAT,
            "delay": _LOG_SECONDS,
            "mininterval": _LOG_SECONDS,
            "miniters": 1,
        }
    return tqdm(
        items, desc=description, unit=unit, total=total, disable=not show, dynamic_ncols=not log, **log
    )


class _Lines:
    """A file that writes each state of a bar to standard error as a line of its own."""

    _last = ""

    def write(self, text: str) -> None:
        # At the end, a bar writes its last state again.
        if (state := text.strip()) and state != self._last:
            sys.stderr.write(f"{state}\n")
            self._last = state

    def flush(self) -> None:
        sys.stderr.flush()
