from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace

import pytest

from topb.progress import QueuePlace
from topb_scorer.errors import UnavailableError
from topb_scorer.jobs.run import Run
from topb_scorer.jobs.run_queue import RunQueue

pytestmark = pytest.mark.scorer


def run_named(name: str) -> Run:
    return Run(SimpleNamespace(id=name))  # type: ignore[arg-type]


def test_runs_get_slots_in_the_order_in_which_they_came(rng: random.Random) -> None:
    """The reference is a set of running names and a deque of waiting ones."""
    queue = RunQueue(3, capacity=1000)
    runs: dict[str, Run] = {}
    running: set[str] = set()
    waiting: deque[str] = deque()
    for number in range(2000):
        action = rng.choice(["enter", "enter", "leave", "withdraw"])
        if action == "enter":
            name = str(number)
            runs[name] = run_named(name)
            has_slot = len(running) < 3
            assert queue.enter(runs[name]) is has_slot
            running.add(name) if has_slot else waiting.append(name)
        elif action == "leave" and running:
            name = rng.choice(sorted(running))
            running.remove(name)
            successor = queue.leave(runs[name])
            assert successor is (runs[waiting[0]] if waiting else None)
            if waiting:
                running.add(waiting.popleft())
        elif action == "withdraw" and waiting:
            name = rng.choice(waiting)
            waiting.remove(name)
            assert queue.withdraw(runs[name])
        assert (queue.running, queue.waiting) == (len(running), len(waiting))
        assert all(queue.place_of(name) is None for name in running)
        places = [queue.place_of(name) for name in waiting]
        assert places == [QueuePlace(i + 1, len(waiting)) for i in range(len(waiting))]
    assert queue.close() == [runs[name] for name in waiting]


def test_a_queue_refuses_a_second_run_of_a_selection_and_one_that_was_cancelled() -> None:
    queue = RunQueue(1, capacity=5)
    assert queue.enter(run_named("a"))
    assert queue.enter(run_named("b")) is False
    cancelled = run_named("c")
    cancelled.cancelled.set()
    for run in (run_named("a"), run_named("b"), cancelled):
        assert queue.enter(run) is None
        assert not queue.withdraw(run)
    queue.close()
    assert queue.enter(run_named("d")) is None


def test_a_queue_that_is_too_long_asks_to_retry() -> None:
    queue = RunQueue(1, capacity=1)
    queue.enter(run_named("a"))
    queue.enter(run_named("b"))
    with pytest.raises(UnavailableError, match="1 selections wait") as caught:
        queue.enter(run_named("c"))
    assert caught.value.reason == "SELECTIONS_BUSY"
    assert caught.value.retry_delay == 5
