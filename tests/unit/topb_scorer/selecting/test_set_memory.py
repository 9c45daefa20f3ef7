"""The memory of set-based selections: what is counted, and when a selection over the limit is refused."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from support.images import random_pool
from support.made_up_logs import made_up_features, made_up_scores
from support.selecting import RecordingObserver
from topb_scorer.cancellation import never_cancelled
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import LimitExceededError
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.set_based import select_set_based
from topb_scorer.selecting.set_memory import SetMemory
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy

pytestmark = pytest.mark.scorer

ROWS = random_pool(30)
SHARDS = [ChunkShard(i, [id_ for id_, _ in ROWS[i::3]], [image for _, image in ROWS[i::3]]) for i in range(3)]
PART = 1000
WIDTH = 6


def memory_of(
    strategy: str,
    *,
    excluded: int = 0,
    limit: int = 2**62,
    labelled: int = 0,
    classes: int = 5,
    **options: str,
) -> SetMemory:
    exclude = {f"{i:07d}": b"" for i in range(excluded)}
    spec = SelectionSpec(3, strategy, exclude=exclude, options=options)
    assert isinstance(spec.query_strategy, SetBasedStrategy)
    return SetMemory(spec.query_strategy, spec, WIDTH, classes, labelled, limit)


def least_limit(memory: SetMemory, rows: int) -> int:
    """Return the smallest limit under which a pool is not refused before it is scored."""
    low, high = 0, 2**40
    while low < high:
        middle = (low + high) // 2
        try:
            SetMemory(**{**vars(memory), "limit": middle}).check_pool(rows)
            high = middle
        except LimitExceededError:
            low = middle + 1
    return low


def test_the_estimate_counts_classes_exclusions_and_the_shortlist() -> None:
    whole = least_limit(memory_of("badge", classes=0), 1000)
    assert least_limit(memory_of("badge", classes=100), 1000) == whole + 1000 * 100 * 4
    # BADGE does not hold the features of excluded images, and core_set does.
    assert least_limit(memory_of("badge", classes=0, excluded=600), 1000) == whole * 400 // 1000
    core_set = [least_limit(memory_of("core_set", excluded=n), 1000) for n in (0, 600)]
    assert core_set[0] > core_set[1] > 1000 * WIDTH * 4
    # A shortlist has at most 2 × 3 candidates, however large the pool is.
    assert least_limit(memory_of("margin", diversify="2"), 10**9) < 2000
    assert least_limit(memory_of("core_set", labelled=500), 10) > 500 * WIDTH * 4


def test_a_pool_over_the_limit_is_refused_before_it_is_scored_if_that_is_known(engine: LocalEngine) -> None:
    (width,) = engine.bundle.output_shape("features")
    labelled = len(engine.bundle.labelled_features())
    spec = SelectionSpec(3, "core_set", include_labelled=True)
    assert isinstance(spec.query_strategy, SetBasedStrategy)
    needed = least_limit(SetMemory(spec.query_strategy, spec, width, 0, labelled, 0), len(ROWS))
    assert needed > len(ROWS) * width * 4

    def read_with(limit: int) -> int:
        """Return how many rows were read until the selection was refused."""
        observer = RecordingObserver()
        settings = SelectingSettings(max_set_bytes=limit)
        with pytest.raises(LimitExceededError) as caught:
            select_from_pool(
                spec, engine, SHARDS, settings=settings, observer=observer, cancelled=threading.Event()
            )
        assert caught.value.reason == "FEATURES_OVER_LIMIT"
        return sum(observer.rows)

    assert read_with(needed - 1) == 0
    # Only the ids, which are not known before, do not fit.
    assert read_with(needed) == len(ROWS)
    select_from_pool(
        spec,
        engine,
        SHARDS,
        settings=SelectingSettings(max_set_bytes=needed + 6000),
        cancelled=threading.Event(),
    )


def select(memory: SetMemory, rows: int, scratch: Path) -> None:
    select_set_based(
        memory.strategy,
        memory.spec,
        made_up_scores(rows, part=PART),
        made_up_features(width=WIDTH, classes=5, part=PART),
        {},
        np.zeros((0, WIDTH), np.float32),
        memory=memory,
        rows=rows,
        scratch=scratch,
        search_device="cpu",
        check=never_cancelled,
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["core_set", "badge"])
@pytest.mark.parametrize("excluded", [0, 40_000])
def test_a_selection_takes_no_more_memory_than_the_limit(
    strategy: str, excluded: int, tmp_path: Path
) -> None:
    rows = 60_000
    # The smallest limit in steps of a tenth under which the selection is not refused.
    for limit in (int(1_000_000 * 1.1**step) for step in range(60)):
        memory = memory_of(strategy, excluded=excluded, limit=limit)
        try:
            select(memory, rows, tmp_path)
            break
        except LimitExceededError:
            continue
    before = pa.total_allocated_bytes()
    most = 0

    def check() -> None:
        nonlocal most
        most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[1])

    tracemalloc.start()
    try:
        select(memory, rows, tmp_path)
        check()
    finally:
        tracemalloc.stop()
    # Buffers and one part of the log take less than 6 MB. The excluded ids that were found belong to the
    # request.
    assert most < limit + 6_000_000 + 150 * excluded
