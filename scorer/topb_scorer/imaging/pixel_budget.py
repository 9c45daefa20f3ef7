"""Limit how many pixels are decoded at once, whoever asks for them, and give their memory back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from topb_scorer.cancellation import Check
from topb_scorer.memory import give_back

_POLL_SECONDS = 0.1


class PixelBudget:
    """A number of pixels that may be decoded at once. All threads that decode in one process share it.

    Threads are served in the order in which they ask, so that a large image is not passed over for ever.

    Attributes:
        pixels: the number of pixels that may be decoded at once.
    """

    def __init__(self, pixels: int, give_back: Callable[[], object] = give_back) -> None:
        """Create a budget of which nothing is held.

        Args:
            pixels: the number of pixels that may be decoded at once.
            give_back: gives freed memory back to the system. It is called when no pixels are held any more,
                after at least a quarter of the budget was decoded.
        """
        self.pixels = pixels
        self._give_back = give_back
        self._decoded = 0
        self._free = pixels
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int, check: Check) -> Iterator[None]:
        """Wait until so many pixels are free, and hold them while the context is open.

        An image that is larger than the whole budget waits until it can be decoded alone.

        Args:
            pixels: the number of pixels.
            check: called while waiting. An error that it raises ends the wait.
        """
        held = min(pixels, self.pixels)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or held > self._free:
                    self._changed.wait(_POLL_SECONDS)
                    check()
                self._free -= held
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._decoded += held
                much = self._free == self.pixels and self._decoded >= self.pixels // 4
                if much:
                    self._decoded = 0
                self._changed.notify_all()
            if much:
                self._give_back()
