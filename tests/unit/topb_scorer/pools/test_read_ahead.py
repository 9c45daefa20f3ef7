from __future__ import annotations

import threading

import pytest

from topb_scorer.pools.read_ahead import map_ahead

pytestmark = pytest.mark.scorer


@pytest.mark.parametrize("remote", [range(100), range(0), range(0, 100, 2), range(40)])
def test_reading_ahead_keeps_the_order_of_the_rows(remote: range) -> None:
    results = map_ahead(lambda row: row * row, range(100), is_remote=remote.__contains__)
    assert list(results) == [row * row for row in range(100)]


def test_sixteen_remote_rows_are_read_at_once() -> None:
    together = threading.Barrier(16)

    def read(row: int) -> int:
        together.wait(timeout=20)
        return row

    assert list(map_ahead(read, range(32), is_remote=lambda _: True)) == list(range(32))


def test_local_rows_are_read_when_their_turn_comes() -> None:
    read: list[int] = []
    results = map_ahead(lambda row: read.append(row), range(100), is_remote=lambda _: False)
    for count in range(1, 10):
        next(results)
        assert read == list(range(count))


def test_a_read_error_is_raised_when_its_row_is_due() -> None:
    results = map_ahead(lambda row: 1 // (5 - row), range(10), is_remote=lambda row: row % 2 == 0)
    assert [next(results) for _ in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_cancels_reads_that_have_not_started() -> None:
    begun: list[int] = []
    blocked = threading.Event()

    def read(row: int) -> int:
        begun.append(row)
        if row > 0:
            blocked.wait(timeout=20)
        return row

    results = map_ahead(read, range(1000), is_remote=lambda _: True)
    assert next(results) == 0
    threading.Timer(0.05, blocked.set).start()
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 17
