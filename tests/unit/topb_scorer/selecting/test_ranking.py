from __future__ import annotations

import math
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.selecting.ranking import TopB

pytestmark = pytest.mark.scorer

Rows = list[tuple[str, float, int]]


def offer(top: TopB, rows: Rows) -> None:
    part = scored([id_ for id_, _, _ in rows], np.array([class_ for _, _, class_ in rows], np.int32))
    top.offer(part, np.arange(len(rows)), np.array([score for _, score, _ in rows], np.float64))


def scored(ids: list[str], classes: NDArray[np.int32]) -> ScoredRows:
    zeros = np.zeros(len(ids))
    confidence = (classes / 8).astype(np.float32)
    return ScoredRows(
        ids,
        np.zeros((len(ids), 16), np.uint8),
        zeros.astype(np.float32),
        classes / 4,
        zeros,
        confidence,
        classes,
        {},
    )


def ranked(rows: Rows, budget: int, *, offers: int = 1) -> list[tuple[str, float, int]]:
    top = TopB(budget)
    size = max(1, -(-len(rows) // offers))
    for start in range(0, len(rows), size):
        offer(top, rows[start : start + size])
    return [(row.id, row.score, row.predicted_class) for row in top.ranked()]


def reference(rows: Rows, budget: int) -> Rows:
    best: dict[str, tuple[str, float, int]] = {}
    for row in rows:
        best[row[0]] = min(row, best.get(row[0], row), key=order)
    return sorted(best.values(), key=order)[:budget]


def order(row: tuple[str, float, int]) -> tuple[float, str, int]:
    id_, score, class_ = row
    return -score, id_, class_


# Few ids and few scores: ties and duplicates are the rule.
few = st.tuples(
    st.sampled_from(["a", "b", "c", "aa", "é", "Z", "z", "10", "9", ""]),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, math.nextafter(0.5, 1), 5e-324, -1.0, 1e308]),
    st.integers(0, 3),
)
many = st.tuples(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 3))


@given(st.lists(st.one_of(few, many), max_size=80), st.integers(1, 100), st.integers(1, 9), st.randoms())
@settings(max_examples=150, deadline=None)
def test_the_ranking_equals_a_dict_and_a_sort(
    rows: Rows, budget: int, offers: int, shuffler: random.Random
) -> None:
    expected = reference(rows, budget)
    assert ranked(rows, budget, offers=offers) == expected
    shuffler.shuffle(rows)
    assert ranked(rows, budget) == expected


@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([3, 50, 5_000]))
@settings(max_examples=12, deadline=None)
def test_many_more_rows_than_the_budget_are_ranked_like_a_dict_and_a_sort(
    seed: int, budget: int, ids: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, (ids, 300, 4), (12_000, 3)).tolist()
    rows = [(f"{id_}", float(score), class_) for id_, score, class_ in drawn]
    assert ranked(rows, budget, offers=3) == reference(rows, budget)


def test_rows_can_be_added_after_a_ranking_was_returned() -> None:
    top = TopB(2)
    offer(top, [("a", 1.0, 0), ("b", 2.0, 0)])
    first = top.ranked()
    assert [row.id for row in first] == ["b", "a"]
    first.clear()
    offer(top, [("c", 1.5, 0)])
    assert [row.id for row in top.ranked()] == ["b", "c"]


@pytest.mark.parametrize("rising", [False, True])
def test_memory_grows_with_the_budget_and_not_with_the_rows(rising: bool) -> None:
    def peak(rows: int) -> int:
        top = TopB(100)
        scores = np.arange(rows, dtype=np.float64) * (1 if rising else -1)
        part = scored([f"{row:08d}" for row in range(rows)], np.zeros(rows, np.int32))
        chosen = np.arange(rows)
        tracemalloc.start()
        try:
            top.offer(part, chosen, scores)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60_000) < 1.5 * peak(10_000)
