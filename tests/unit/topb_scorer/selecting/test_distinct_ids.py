from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topb_scorer.selecting.distinct_ids import DistinctIds, distinct_rows

pytestmark = pytest.mark.scorer


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digests")


def count(scratch: Path, *parts: list[str], expected: int = 0) -> int:
    with closing(DistinctIds(scratch, expected)) as distinct:
        for part in parts:
            distinct.add(part)
        return distinct.count()


@given(
    st.lists(st.lists(st.one_of(st.text(max_size=3), st.sampled_from("abc"))), max_size=5),
    st.sampled_from([0, 1, 10, 1 << 18, 1 << 21]),
)
@settings(max_examples=60, deadline=None)
def test_distinct_ids_are_counted_like_a_set(scratch: Path, parts: list[list[str]], expected: int) -> None:
    assert count(scratch, *parts, expected=expected) == len({id_ for part in parts for id_ in part})


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2**64 - 1])), max_size=12))
def test_ids_whose_digests_share_a_half_are_distinguished(pairs: list[tuple[int, int]]) -> None:
    assert distinct_rows(np.array(pairs, np.uint64).reshape(-1, 2)) == len(set(pairs))


def test_more_ids_than_expected_are_counted(scratch: Path) -> None:
    ids = [str(i) for i in range(20_000)]
    assert count(scratch, ids, ids[::2], expected=3) == 20_000


def test_counting_can_continue_after_a_result(scratch: Path) -> None:
    with closing(DistinctIds(scratch, 1 << 19)) as distinct:
        distinct.add(["a", "b"])
        assert distinct.count() == 2
        distinct.add(["b", "c"])
        assert distinct.count() == 3


def test_ids_are_spilled_to_a_bounded_number_of_files(tmp_path: Path) -> None:
    with closing(DistinctIds(tmp_path, 10**12)) as distinct:
        assert len(list(tmp_path.iterdir())) == 512
        distinct.add([str(i) for i in range(5_000)])
        distinct.count()
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 16 * 5_000


def test_ids_that_differ_in_one_letter_padding_or_length_are_distinguished(scratch: Path) -> None:
    ids = [f"{'x' * length}{letter}" for length in range(40) for letter in ("", "\0", "a", "\0\0", "é")]
    assert count(scratch, ids, expected=1 << 19) == len(set(ids))
    numbered = [f"https://example.com/images/{i:09d}.jpg" for i in range(200_000)]
    assert count(scratch, numbered, expected=1 << 19) == len(numbered)
