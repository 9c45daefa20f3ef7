"""A set-based strategy stops within a few steps of a cancel, wherever it is in its work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import pytest

from support.images import random_pool
from support.selecting import selected, set_candidates, stream_shards
from topb_scorer.cancellation import check_of
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy, SetCandidates, names

pytestmark = pytest.mark.scorer

# A step is one call of a function of topb or FAISS. It handles at most one block of rows.
MOST_STEPS_AFTER_A_CANCEL = 60
BUDGET = 60

SPECS = [SelectionSpec(BUDGET, name) for name in names()]
SPECS.append(SelectionSpec(BUDGET, "entropy", options={"diversify": "4"}))
EACH = pytest.mark.parametrize(
    "spec",
    [spec for spec in SPECS if isinstance(spec.query_strategy, SetBasedStrategy)],
    ids=lambda spec: " ".join([spec.strategy, *spec.options]),
)


class Steps:
    """Counts the steps, and sets an event at one of them."""

    def __init__(self, cancel_at: int) -> None:
        self.taken = 0
        self.cancelled = threading.Event()
        self._cancel_at = cancel_at

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        own = "topb_scorer" in code.co_filename and not code.co_filename.endswith("cancellation.py")
        if event == "call" and (own or "faiss" in code.co_filename):
            self.taken += 1
            if self.taken == self._cancel_at:
                self.cancelled.set()


@contextmanager
def counted(cancel_at: int = -1) -> Iterator[Steps]:
    steps, before = Steps(cancel_at), sys.getprofile()
    sys.setprofile(steps)
    try:
        yield steps
    finally:
        sys.setprofile(before)


def made(size: int, labelled: int, *, tied: bool) -> SetCandidates:
    random = np.random.default_rng(size)
    rows = random.standard_normal((size + labelled, 8)).astype(np.float32)
    if tied:
        # Few values far from a common grain: many distances are equal, and none are exact in float32.
        rows = np.round(rows) * np.float32(0.1)
    probabilities = random.dirichlet(np.ones(3), size).astype(np.float32)
    return set_candidates(rows[:size], rows[size:], probabilities, random.random(size))


@pytest.mark.slow
@EACH
@pytest.mark.parametrize(("labelled", "tied"), [(0, False), (400, False), (300, True)])
def test_a_strategy_stops_within_a_few_steps_of_a_cancel(
    spec: SelectionSpec, labelled: int, tied: bool
) -> None:
    strategy, candidates = spec.query_strategy, made(4500, labelled, tied=tied)
    assert isinstance(strategy, SetBasedStrategy)
    with counted() as whole:
        strategy.select(candidates, budget=BUDGET, seed=0)
    assert whole.taken > 2 * MOST_STEPS_AFTER_A_CANCEL
    for cancel_at in np.linspace(1, whole.taken - MOST_STEPS_AFTER_A_CANCEL, 10).astype(int).tolist():
        with counted(cancel_at) as steps, pytest.raises(SelectionCancelledError):
            strategy.select(candidates, budget=BUDGET, seed=0, check=check_of(steps.cancelled))
        assert steps.taken - cancel_at <= MOST_STEPS_AFTER_A_CANCEL


@EACH
def test_a_selection_that_is_cancelled_while_its_strategy_picks_ends(
    spec: SelectionSpec, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()
    strategy = type(spec.query_strategy)
    select = strategy.select  # type: ignore[attr-defined]

    def cancel_and_select(*arguments: object, **options: object) -> object:
        cancelled.set()
        return select(*arguments, **options)

    monkeypatch.setattr(strategy, "select", cancel_and_select)
    with pytest.raises(SelectionCancelledError):
        selected(spec, engine, stream_shards([*random_pool(100)], chunk=20), cancelled=cancelled)
