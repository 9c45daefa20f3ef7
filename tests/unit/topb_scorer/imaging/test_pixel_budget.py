from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from topb_scorer.cancellation import check_of, never_cancelled
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.imaging import PixelBudget

pytestmark = [pytest.mark.scorer, pytest.mark.timeout(60)]


class Holder:
    """A thread that holds pixels from `holding` on until it is released."""

    def __init__(self, budget: PixelBudget, pixels: int) -> None:
        self.holding = threading.Event()
        self.cancelled = threading.Event()
        self.error: BaseException | None = None
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(budget, pixels), daemon=True)
        self._thread.start()

    def _hold(self, budget: PixelBudget, pixels: int) -> None:
        try:
            with budget.hold(pixels, check_of(self.cancelled)):
                self.holding.set()
                self._release.wait()
        except SelectionCancelledError as error:
            self.error = error

    def release(self) -> None:
        self._release.set()
        self._thread.join()

    def is_waiting(self) -> bool:
        return not self.holding.wait(0.3)


def test_no_more_pixels_are_held_at_once_than_the_budget_has() -> None:
    budget, lock = PixelBudget(100), threading.Lock()
    held, most = 0, 0

    def work(pixels: int) -> None:
        nonlocal held, most
        with budget.hold(pixels, never_cancelled):
            with lock:
                held += pixels
                most = max(most, held)
            threading.Event().wait(0.001)
            with lock:
                held -= pixels

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, [1, 40, 99, 100, 3, 60] * 30))
    assert held == 0
    assert 60 <= most <= 100


def test_a_large_image_is_not_passed_over_by_small_ones_that_come_later() -> None:
    budget = PixelBudget(100)
    first = Holder(budget, 60)
    assert first.holding.wait(10)
    large = Holder(budget, 50)
    assert large.is_waiting()
    small = Holder(budget, 1)
    assert small.is_waiting()
    first.release()
    assert large.holding.wait(10)
    assert small.holding.wait(10)
    large.release()
    small.release()


def test_an_image_larger_than_the_budget_is_decoded_alone() -> None:
    budget = PixelBudget(100)
    first = Holder(budget, 1)
    assert first.holding.wait(10)
    huge = Holder(budget, 1000)
    assert huge.is_waiting()
    first.release()
    assert huge.holding.wait(10)
    another = Holder(budget, 1)
    assert another.is_waiting()
    huge.release()
    assert another.holding.wait(10)
    another.release()


def test_a_cancelled_image_stops_waiting_and_lets_the_next_one_pass() -> None:
    budget = PixelBudget(100)
    first = Holder(budget, 60)
    assert first.holding.wait(10)
    large, small = Holder(budget, 50), Holder(budget, 1)
    assert large.is_waiting()
    large.cancelled.set()
    assert small.holding.wait(10)
    large.release()
    assert isinstance(large.error, SelectionCancelledError)
    first.release()
    small.release()


def test_memory_is_given_back_when_much_was_decoded_and_nothing_is_held() -> None:
    given_back: list[int] = []
    budget = PixelBudget(100, lambda: given_back.append(1))
    for pixels in (10, 14):
        with budget.hold(pixels, never_cancelled):
            pass
    assert given_back == []
    with budget.hold(1, never_cancelled):
        with budget.hold(50, never_cancelled):
            pass
        assert given_back == []
    assert given_back == [1]
    with budget.hold(24, never_cancelled):
        pass
    assert given_back == [1]
