from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from topb_scorer.scoring.batches import Element
from topb_scorer.scoring.encoded_rows import EncodedRows
from topb_scorer.scoring.pipeline import encode_shards
from topb_scorer.scoring.session import GraphSession

pytestmark = pytest.mark.scorer

BATCH = 4
# Read ahead: 4 batches wait, 1 is on its way to them, 1 is about to be decoded, 3 are decoded or run.
BATCHES_AHEAD = 9


@dataclass(frozen=True)
class StubShard:
    identity: str
    contents: Iterable[PoolItem]
    rows: int = 0

    def items(self) -> Iterator[PoolItem]:
        return iter(self.contents)


def shade(red: int) -> np.ndarray:
    return np.full((16, 16, 3), red, np.uint8)


def shard(name: str, *reds: int) -> StubShard:
    return StubShard(name, [PoolItem(f"{name}{row}", shade(red)) for row, red in enumerate(reds)])


def endless(on_read: Callable[[int], object] = lambda _: None) -> StubShard:
    """Return a shard without end, which tells `on_read` each row that is read."""
    items = (PoolItem(f"{row}", shade(row % 256)) for row in itertools.count() if not on_read(row))
    return StubShard("endless", items)


def scored(
    shards: Iterable[Shard | None],
    session: GraphSession,
    *,
    cancelled: threading.Event | None = None,
    decode_threads: int = 2,
    limits: ImageLimits = imaging.DEFAULT_LIMITS,
) -> closing[Iterator[EncodedRows]]:
    return closing(
        encode_shards(
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


def test_every_row_is_scored_in_the_order_of_its_shard(null_encoder: GraphSession) -> None:
    shards = [shard("a", 1, 2, 3, 4, 5, 6, 7, 8, 9), shard("b", 10), shard("c", 11, 12, 13)]
    with scored(shards, null_encoder) as parts:
        rows = [
            (part.shard.identity, id_, score)
            for part in parts
            for id_, score in zip(part.ids, part.outputs["features"][:, 0].tolist(), strict=True)
        ]
    expected = [("a", f"a{i}", i + 1.0) for i in range(9)] + [("b", "b0", 10.0)]
    assert rows == expected + [("c", f"c{i}", 11.0 + i) for i in range(3)]


def test_batches_span_shards(null_encoder: GraphSession, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = null_encoder.run
    monkeypatch.setattr(null_encoder, "run", lambda batch: (runs.append(batch), run(batch)))
    with scored([shard(f"s{i}", i, i, i) for i in range(8)], null_encoder) as parts:
        ends = [part.shard.identity for part in parts if part.ends_shard]
    assert ends == [f"s{i}" for i in range(8)]
    assert len(runs) == 24 // BATCH


def test_every_shard_ends_exactly_once_even_if_empty_or_as_long_as_a_batch(
    null_encoder: GraphSession,
) -> None:
    lengths = [0, 4, 0, 0, 8, 1, 3, 0, 12, 5, 0]
    with scored([shard(f"{i}", *range(n)) for i, n in enumerate(lengths)], null_encoder) as parts:
        counted = [0] * len(lengths)
        ended = []
        for part in parts:
            counted[int(part.shard.identity)] += len(part.ids)
            if part.ends_shard:
                ended.append(int(part.shard.identity))
    assert counted == lengths
    assert ended == list(range(len(lengths)))


@pytest.mark.parametrize("shards", [[], [None], [None, None]])
def test_shards_without_rows_give_no_results(null_encoder: GraphSession, shards: list[Shard | None]) -> None:
    with scored(shards, null_encoder) as parts:
        assert list(parts) == []


def test_a_row_that_cannot_be_scored_is_skipped_with_its_reason(null_encoder: GraphSession) -> None:
    images = {
        "good": encode(random_image(1)),
        "missing": Unreadable("FILE_MISSING", "gone"),
        "text": b"no image",
        "empty": b"",
        "large": encode(random_image(1, 40, 40)),
        "array": np.zeros((16, 16), np.uint8),
    }
    mixed = StubShard("mixed", [PoolItem(id_, image) for id_, image in images.items()])
    with scored([mixed, shard("b", 7, 8)], null_encoder, limits=ImageLimits(max_pixels=1000)) as parts:
        rows = {part.ids[row]: skip for part in parts for row, skip in part.skips.items()}
    assert {id_: skip.reason for id_, skip in rows.items()} == {
        "missing": "FILE_MISSING",
        "text": "IMAGE_FORMAT_UNKNOWN",
        "empty": "IMAGE_EMPTY",
        "large": "IMAGE_TOO_LARGE",
        "array": "IMAGE_SHAPE",
    }
    assert rows["missing"].detail == "gone"


def test_a_batch_with_nothing_to_score_is_not_run(
    null_encoder: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(null_encoder, "run", lambda _: pytest.fail("there is nothing to run"))
    broken = StubShard("broken", [PoolItem(f"{i}", b"") for i in range(9)])
    with scored([broken], null_encoder) as parts:
        assert sum(len(part.skips) for part in parts) == 9


def test_none_among_the_shards_flushes_the_partial_batch(null_encoder: GraphSession) -> None:
    released = threading.Event()

    def shards() -> Iterator[Shard | None]:
        yield shard("a", 1, 2)
        yield None
        assert released.wait(10)
        yield shard("b", 3)

    with scored(shards(), null_encoder) as parts:
        first = next(parts)
        assert (first.shard.identity, first.ends_shard) == ("a", True)
        released.set()
        assert [part.shard.identity for part in parts] == ["b"]


def test_reading_runs_a_bounded_number_of_batches_ahead(null_encoder: GraphSession) -> None:
    taken = 0

    def on_read(row: int) -> None:
        # The batch that is being waited for counts as taken, and one item more tells that a batch is full.
        assert row <= (taken + 1 + BATCHES_AHEAD) * BATCH

    with scored([endless(on_read)], null_encoder) as parts:
        for _ in range(50):
            next(parts)
            taken += 1


@pytest.mark.parametrize(
    ("pool", "taken"),
    [
        pytest.param(endless(), 1, id="within one batch"),
        pytest.param(shard("a", *range(2 * BATCH + 1)), 1, id="the last batches"),
        pytest.param(shard("a", 1), 0, id="before it begins"),
    ],
)
def test_cancelling_stops_scoring_with_an_error(
    null_encoder: GraphSession, pool: StubShard, taken: int
) -> None:
    cancelled = threading.Event()
    with scored([pool], null_encoder, cancelled=cancelled) as parts:
        for _ in range(taken):
            next(parts)
        cancelled.set()
        with pytest.raises(SelectionCancelledError):
            next(parts)


def test_cancelling_while_a_stream_waits_stops_it(null_encoder: GraphSession) -> None:
    cancelled = threading.Event()
    chunks = ChunkQueue(2, cancelled)
    chunks.put(ChunkShard(0, ["a"], [encode(random_image(0))]))
    with scored(chunks.shards(), null_encoder, cancelled=cancelled) as parts:
        assert next(parts).ids == ["a"]
        threading.Timer(0.05, cancelled.set).start()
        with pytest.raises(SelectionCancelledError):
            next(parts)


def test_no_image_is_decoded_after_a_cancel(
    null_encoder: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, decoded = threading.Event(), []
    load = imaging.load

    def cancel_at_the_sixth(*arguments: object, **options: object) -> object:
        decoded.append(1)
        if len(decoded) == 6:
            cancelled.set()
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(imaging, "load", cancel_at_the_sixth)
    with (
        scored([shard("a", *range(40))], null_encoder, cancelled=cancelled, decode_threads=1) as parts,
        pytest.raises(SelectionCancelledError),
    ):
        list(parts)
    assert len(decoded) == 6


def test_closing_while_a_stream_waits_ends_it(null_encoder: GraphSession) -> None:
    chunks = ChunkQueue(2, threading.Event())
    chunks.put(ChunkShard(0, ["a"], [encode(random_image(0))]))
    late = threading.Event()

    def shards() -> Iterator[Shard | None]:
        for chunk in chunks.shards():
            if chunk is None:
                late.set()
            yield chunk

    with scored(shards(), null_encoder) as parts:
        assert next(parts).ids == ["a"]
        assert late.wait(10)


class Unforeseen(bytes):
    def __len__(self) -> int:
        raise MemoryError("no room")


def torn(before: Element) -> Iterator[Element]:
    yield before
    raise UnreadablePoolError("torn", reason="POOL_UNREADABLE")


@pytest.mark.parametrize(
    ("shards", "error"),
    [
        pytest.param(
            lambda: [shard("good", *range(9)), StubShard("torn", torn(PoolItem("a", shade(1))))],
            UnreadablePoolError,
            id="of a reader",
        ),
        pytest.param(lambda: torn(shard("a", 1)), UnreadablePoolError, id="of the list of shards"),
        pytest.param(
            lambda: [StubShard("broken", [PoolItem("a", Unforeseen())]), shard("b", *range(40))],
            MemoryError,
            id="of a decoder that nobody foresaw",
        ),
    ],
)
def test_an_error_while_reading_is_raised_to_the_caller(
    null_encoder: GraphSession, shards: Callable[[], Iterable[Shard]], error: type[Exception]
) -> None:
    with scored(shards(), null_encoder) as parts, pytest.raises(error):
        list(parts)


def test_an_error_of_the_session_is_raised_to_the_caller(
    null_encoder: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(batch: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(null_encoder, "run", run)
    with scored([endless()], null_encoder) as parts, pytest.raises(RuntimeError, match="out of memory"):
        next(parts)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_stops_all_threads(null_encoder: GraphSession, taken: int) -> None:
    before = threading.active_count()
    with scored([endless()], null_encoder) as parts:
        assert threading.active_count() == before
        for _ in range(taken):
            next(parts)


@pytest.mark.parametrize("decode_threads", [1, 2, 5])
def test_one_session_can_score_for_several_callers_at_once(
    null_encoder: GraphSession, decode_threads: int
) -> None:
    reds = [[(number * 40 + i) % 256 for i in range(50)] for number in range(4)]

    def scores(reds: list[int]) -> list[float]:
        with scored([shard("a", *reds)], null_encoder, decode_threads=decode_threads) as parts:
            return [score for part in parts for score in part.outputs["features"][:, 0].tolist()]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(scores, reds)) == reds
