from __future__ import annotations

from random import Random

import pytest

from topb_scorer.pools.slicing import slices

pytestmark = pytest.mark.scorer

IDS = [f"img-{i:05d}" for i in range(4000)]


def cut(ids: list[str], max_rows: int = 4096) -> list[tuple[str, ...]]:
    return [tuple(slice_) for slice_ in slices(ids, lambda id_: id_, max_rows=max_rows)]


def test_slices_hold_every_row_once_and_in_order() -> None:
    found = cut(IDS)
    assert [id_ for slice_ in found for id_ in slice_] == IDS
    assert 4 <= len(found) <= 20
    assert cut([]) == []


def test_adding_or_removing_a_row_changes_only_its_own_slice(rng: Random) -> None:
    before = cut(IDS)
    for _ in range(50):
        at = rng.randrange(len(IDS))
        for changed in ([*IDS[:at], "new", *IDS[at:]], IDS[:at] + IDS[at + 1 :]):
            # Two, if the row ended a slice.
            assert len(set(cut(changed)) - set(before)) <= 2


def test_a_long_run_without_a_boundary_is_cut() -> None:
    found = cut([f"{i}" for i in range(40)], max_rows=7)
    assert [len(slice_) for slice_ in found] == [7, 7, 7, 7, 7, 5]
