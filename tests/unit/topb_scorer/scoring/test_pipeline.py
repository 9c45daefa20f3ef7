from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest

from support.images import encode, random_image
from topb.image_input import ImageInput
from topb_scorer import imaging
from topb_scorer.errors import SelectionCancelledError, UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import PoolItem, Shard, Unreadable
from topb_scorer.pools.stream import ChunkQueue, ChunkShard
from topb_scorer.scoring.pipeline import ShardRows, score_shards
from topb_scorer.scoring.session import ScoringSession

pytestmark = pytest.mark.scorer

BATCH = 4
# Read ahead: 4 batches wait, 1 is on its way to them, 1 is about to be decoded, 3 are decoded or run.
BATCHES_AHEAD = 9


@dataclass(frozen=True)
class ListShard:
    """A shard in memory."""

    identity: str
    contents: tuple[PoolItem, ...]

    @property
    def rows(self) -> int:
        return len(self.contents)

    def items(self) -> Iterator[PoolItem]:
        return iter(self.contents)


@dataclass(frozen=True)
class EndlessShard:
    """Images without end; counts those that were read."""

    on_read: Callable[[int], None]
    rows: int = 0
    identity: str = "endless"

    def items(self) -> Iterator[PoolItem]:
        row = 0
        while True:
            self.on_read(row)
            yield PoolItem(f"{row}", shade(row % 256))
            row += 1


def shade(red: int) -> np.ndarray:
    return np.full((16, 16, 3), red, np.uint8)


def shard(name: str, *reds: int) -> ListShard:
    return ListShard(name, tuple(PoolItem(f"{name}{row}", shade(red)) for row, red in enumerate(reds)))


def scored(
    shards: Iterable[Shard | None],
    session: ScoringSession,
    *,
    cancelled: threading.Event | None = None,
    decode_threads: int = 2,
    limits: ImageLimits = imaging.DEFAULT_LIMITS,
) -> closing[Iterator[ShardRows]]:
    return closing(
        score_shards(
            shards,
            session,
            ImageInput(16, 16),
            limits=limits,
            decode_threads=decode_threads,
            cancelled=cancelled or threading.Event(),
        )
    )


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_every_row_is_scored_in_the_order_of_its_shard(null_session: ScoringSession) -> None:
    shards = [shard("a", 1, 2, 3, 4, 5, 6, 7, 8, 9), shard("b", 10), shard("c", 11, 12, 13)]
    with scored(shards, null_session) as parts:
        rows = [
            (part.shard.identity, id_, score)
            for part in parts
            for id_, score in zip(part.rows.ids, part.rows.score.tolist(), strict=True)
        ]
    expected = [("a", f"a{i}", i + 1.0) for i in range(9)] + [("b", "b0", 10.0)]
    assert rows == expected + [("c", f"c{i}", 11.0 + i) for i in range(3)]


def test_batches_span_shards(null_session: ScoringSession, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = null_session.run
    monkeypatch.setattr(null_session, "run", lambda batch: (runs.append(batch), run(batch)))
    with scored([shard(f"s{i}", i, i, i) for i in range(8)], null_session) as parts:
        ends = [part.shard.identity for part in parts if part.ends_shard]
    assert ends == [f"s{i}" for i in range(8)]
    assert len(runs) == 24 // BATCH


def test_a_shard_ends_exactly_once_be_it_empty_or_as_long_as_a_batch(null_session: ScoringSession) -> None:
    lengths = [0, 4, 0, 0, 8, 1, 3, 0, 12, 5, 0]
    with scored([shard(f"{i}", *range(n)) for i, n in enumerate(lengths)], null_session) as parts:
        counted = [0] * len(lengths)
        ended = []
        for part in parts:
            counted[int(part.shard.identity)] += len(part.rows.ids)
            if part.ends_shard:
                ended.append(int(part.shard.identity))
    assert counted == lengths
    assert ended == list(range(len(lengths)))


@pytest.mark.parametrize("shards", [[], [None], [None, None]])
def test_nothing_to_score_scores_nothing(null_session: ScoringSession, shards: list[Shard | None]) -> None:
    with scored(shards, null_session) as parts:
        assert list(parts) == []


def test_a_row_that_cannot_be_scored_is_skipped_with_its_reason(null_session: ScoringSession) -> None:
    mixed = ListShard(
        "mixed",
        (
            PoolItem("good", encode(random_image(1))),
            PoolItem("missing", Unreadable("FILE_MISSING", "gone")),
            PoolItem("text", b"no image"),
            PoolItem("empty", b""),
            PoolItem("large", encode(random_image(1, 40, 40))),
            PoolItem("array", np.zeros((16, 16), np.uint8)),
        ),
    )
    with scored([mixed, shard("b", 7, 8)], null_session, limits=ImageLimits(max_pixels=1000)) as parts:
        rows = {part.rows.ids[row]: skip for part in parts for row, skip in part.rows.skips.items()}
    assert {id_: skip.reason for id_, skip in rows.items()} == {
        "missing": "FILE_MISSING",
        "text": "IMAGE_FORMAT_UNKNOWN",
        "empty": "IMAGE_EMPTY",
        "large": "IMAGE_TOO_LARGE",
        "array": "IMAGE_SHAPE",
    }
    assert rows["missing"].detail == "gone"


def test_a_batch_with_nothing_to_score_is_not_run(
    null_session: ScoringSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(null_session, "run", lambda _: pytest.fail("there is nothing to run"))
    broken = ListShard("broken", tuple(PoolItem(f"{i}", b"") for i in range(9)))
    with scored([broken], null_session) as parts:
        assert sum(len(part.rows.skips) for part in parts) == 9


def test_none_among_the_shards_brings_out_what_is_at_hand(null_session: ScoringSession) -> None:
    released = threading.Event()

    def shards() -> Iterator[Shard | None]:
        yield shard("a", 1, 2)
        yield None
        assert released.wait(10)
        yield shard("b", 3)

    with scored(shards(), null_session) as parts:
        first = next(parts)
        assert (first.shard.identity, first.ends_shard) == ("a", True)
        released.set()
        assert [part.shard.identity for part in parts] == ["b"]


def test_reading_runs_a_bounded_number_of_batches_ahead(null_session: ScoringSession) -> None:
    taken = 0

    def read(row: int) -> None:
        # The batch that is being waited for counts as taken, and one item more tells that a batch is full.
        assert row <= (taken + 1 + BATCHES_AHEAD) * BATCH

    with scored([EndlessShard(read)], null_session) as parts:
        for _ in range(50):
            next(parts)
            taken += 1


def test_cancelling_stops_within_one_batch(null_session: ScoringSession) -> None:
    cancelled = threading.Event()
    with scored([EndlessShard(lambda _: None)], null_session, cancelled=cancelled) as parts:
        next(parts)
        cancelled.set()
        with pytest.raises(SelectionCancelledError):
            next(parts)


def test_cancelling_stops_the_last_batches_of_a_pool_too(null_session: ScoringSession) -> None:
    cancelled = threading.Event()
    with scored([shard("a", *range(2 * BATCH + 1))], null_session, cancelled=cancelled) as parts:
        next(parts)
        cancelled.set()
        with pytest.raises(SelectionCancelledError):
            next(parts)


def test_cancelled_before_it_begins_it_scores_nothing(null_session: ScoringSession) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with (
        scored([shard("a", 1)], null_session, cancelled=cancelled) as parts,
        pytest.raises(SelectionCancelledError),
    ):
        next(parts)


def test_cancelling_while_a_stream_waits_stops_it(null_session: ScoringSession) -> None:
    cancelled = threading.Event()
    chunks = ChunkQueue(2, cancelled)
    chunks.put(ChunkShard(0, ["a"], [encode(random_image(0))]))
    with scored(chunks.shards(), null_session, cancelled=cancelled) as parts:
        assert next(parts).rows.ids == ["a"]
        threading.Timer(0.05, cancelled.set).start()
        with pytest.raises(SelectionCancelledError):
            next(parts)


def test_closing_while_a_stream_waits_ends_it(null_session: ScoringSession) -> None:
    chunks = ChunkQueue(2, threading.Event())
    chunks.put(ChunkShard(0, ["a"], [encode(random_image(0))]))
    late = threading.Event()

    def shards() -> Iterator[Shard | None]:
        for chunk in chunks.shards():
            if chunk is None:
                late.set()
            yield chunk

    with scored(shards(), null_session) as parts:
        assert next(parts).rows.ids == ["a"]
        assert late.wait(10)


def test_an_error_of_a_reader_surfaces(null_session: ScoringSession) -> None:
    def items() -> Iterator[PoolItem]:
        yield PoolItem("a", shade(1))
        raise UnreadablePoolError("torn", reason="POOL_UNREADABLE")

    class TornShard(ListShard):
        def items(self) -> Iterator[PoolItem]:
            return items()

    with (
        scored([shard("good", *range(9)), TornShard("torn", ())], null_session) as parts,
        pytest.raises(UnreadablePoolError, match="torn"),
    ):
        list(parts)


def test_an_error_of_the_list_of_shards_surfaces(null_session: ScoringSession) -> None:
    def shards() -> Iterator[Shard]:
        yield shard("a", 1)
        raise ConnectionError("gone")

    with scored(shards(), null_session) as parts, pytest.raises(ConnectionError, match="gone"):
        list(parts)


def test_an_error_of_the_session_surfaces(
    null_session: ScoringSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(batch: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(null_session, "run", run)
    with (
        scored([EndlessShard(lambda _: None)], null_session) as parts,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        next(parts)


def test_an_error_in_decoding_that_nobody_foresaw_surfaces(null_session: ScoringSession) -> None:
    class Unforeseen(bytes):
        def __len__(self) -> int:
            raise MemoryError("no room")

    broken = ListShard("broken", (PoolItem("a", Unforeseen()),))
    with scored([broken, shard("b", *range(40))], null_session) as parts, pytest.raises(MemoryError):
        list(parts)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_stops_all_threads(null_session: ScoringSession, taken: int) -> None:
    with scored([EndlessShard(lambda _: None)], null_session) as parts:
        for _ in range(taken):
            next(parts)


def test_scoring_that_was_never_begun_has_started_nothing(null_session: ScoringSession) -> None:
    before = threading.active_count()
    with scored([EndlessShard(lambda _: None)], null_session):
        assert threading.active_count() == before


@pytest.mark.parametrize("decode_threads", [1, 2, 5])
def test_a_session_may_score_for_several_at_once(null_session: ScoringSession, decode_threads: int) -> None:
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        reds = [(number * 40 + i) % 256 for i in range(50)]
        with scored([shard(f"{number}", *reds)], null_session, decode_threads=decode_threads) as parts:
            results[number] = [score for part in parts for score in part.rows.score.tolist()]
        assert results[number] == reds

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [(n * 40 + i) % 256 for i in range(50)] for n in range(4)}
