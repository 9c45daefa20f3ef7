"""The benchmark of query times: how it extrapolates."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from topb_trainer.config import TrainConfig
from topb_trainer.runtime import stopwatch
from topb_trainer.runtime.context import RoundContext

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def query_time(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("query_time")


class Clock:
    """Training that takes 50 seconds to set up and 2 seconds a step."""

    now = 0.0

    def train(self, steps: int) -> None:
        self.now += 50 + 2 * steps

    def perf_counter(self) -> float:
        return self.now


def test_the_set_up_of_training_is_counted_once(
    query_time: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    context = RoundContext(TrainConfig())
    assert query_time.extrapolated(clock.train, 5, 3600, context) == 50 + 2 * 3600
    with pytest.raises(SystemExit, match="time more of them"):
        query_time.extrapolated(clock.train, 1, 3600, context)
