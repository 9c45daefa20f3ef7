from __future__ import annotations

import random
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.bundles import STRATEGIES, infinite_feature_graph, reciprocal_graph, write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from support.selecting import RecordingObserver, selected, stream_shards, streamed
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import (
    InvalidRequestError,
    LimitExceededError,
    SelectionCancelledError,
    UnreadablePoolError,
)
from topb_scorer.pools import AllowedRoots, PoolItem, Shard, open_pool
from topb_scorer.pools.stream import ChunkQueue, ChunkShard
from topb_scorer.scoring.model_logs import logs_below
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.serving import check_strategy_served
from topb_scorer.selecting.spec import MAX_BUDGET, SelectionSpec

pytestmark = pytest.mark.scorer

ANYWHERE = AllowedRoots.anywhere()

VALID = [encode(random_image(seed), format_) for seed in range(6) for format_ in ("PNG", "JPEG")]


def test_scores_that_are_not_finite_are_skipped_and_never_ranked(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path, reciprocal_graph()))
    engine = LocalEngine(bundle, EngineSettings(batch_size=3))
    reds = [0, 4, 0, 2, 8, 0, 1]
    images = np.stack([np.full((16, 16, 3), red, np.uint8) for red in reds])
    result = selected(SelectionSpec(10), engine, [ChunkShard(0, [f"{red}" for red in reds], images)])
    assert [(pick.id, pick.score) for pick in result.picks] == [
        ("1", 1.0),
        ("2", 0.5),
        ("4", 0.25),
        ("8", 0.125),
    ]
    assert dict(result.accounts.skipped) == {"SCORE_NOT_FINITE": 3}


@pytest.mark.parametrize("keeps_features", [False, True])
def test_a_row_with_an_infinite_feature_is_skipped_whether_or_not_features_are_kept(
    keeps_features: bool, tmp_path: Path
) -> None:
    bundle = open_bundle(write_bundle(tmp_path, infinite_feature_graph()))
    engine = LocalEngine(bundle, EngineSettings(batch_size=3))
    reds = [0, 4, 0, 2]
    images = np.stack([np.full((16, 16, 3), red, np.uint8) for red in reds])
    logs = replace(logs_below(tmp_path / "logs", needs_features=False), keeps_features=keeps_features)
    shards = [ChunkShard(0, [f"{row}" for row in range(4)], images)]
    result = select_from_pool(SelectionSpec(4), engine, shards, logs, cancelled=threading.Event())
    assert [(pick.id, pick.score) for pick in result.picks] == [("1", 4.0), ("3", 2.0)]
    assert dict(result.accounts.skipped) == {"SCORE_NOT_FINITE": 2}


def test_examples_of_skipped_rows_are_the_first_by_id_in_any_order(engine: LocalEngine) -> None:
    ids = [f"{i:03d}" for i in range(30)]
    for order in (ids, random.Random(0).sample(ids, 30)):
        shards = [ChunkShard(seq, [id_], [b""]) for seq, id_ in enumerate(order)]
        accounts = selected(SelectionSpec(1), engine, shards).accounts
        assert [row.id for row in accounts.skipped_examples] == ids[:20]
        assert dict(accounts.skipped) == {"IMAGE_EMPTY": 30}


def test_another_strategy_selects_from_the_same_log_without_scoring(
    engine: LocalEngine, tmp_path: Path
) -> None:
    shards = [shard for shard in stream_shards([*random_pool(40)], chunk=7) if shard]
    engine.fill(
        logs_below(tmp_path, needs_features=False),
        shards,
        cancelled=threading.Event(),
        on_rows=lambda _: None,
        on_commit=lambda _: None,
    )
    logs = logs_below(tmp_path, needs_features=False)
    for strategy in STRATEGIES:
        spec, observer = SelectionSpec(17, strategy, seed=2), RecordingObserver()
        result = select_from_pool(
            spec,
            engine,
            shards[::-1],
            logs,
            observer=observer,
            cancelled=threading.Event(),
        )
        assert observer.committed == []
        assert result.picks == selected(spec, engine, shards).picks


def test_rows_are_reported_as_they_are_scored_and_shards_when_they_end(engine: LocalEngine) -> None:
    shards = [shard for shard in stream_shards([*random_pool(50)], chunk=9) if shard]
    for select in (selected, streamed):
        observer = RecordingObserver()
        select(SelectionSpec(1), engine, shards, observer=observer)
        assert sum(observer.rows) == 50
        assert len(observer.rows) > 3
        assert observer.committed == [shard.identity for shard in shards]


def test_images_of_a_stream_are_released_after_scoring(engine: LocalEngine) -> None:
    alive: list[weakref.ref[ChunkShard]] = []
    most = 0

    def shards() -> Iterator[Shard]:
        for seq in range(40):
            images = np.zeros((7, 16, 16, 3), np.uint8)
            shard = ChunkShard(seq, [f"{seq}-{row}" for row in range(7)], images)
            alive.append(weakref.ref(shard))
            yield shard

    def count(_: Shard) -> None:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))

    streamed(SelectionSpec(5), engine, shards(), observer=RecordingObserver(then_on_commit=count))
    assert len(alive) == 40
    assert most <= 16


def test_no_temporary_file_remains_after_a_selection(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shards = [ChunkShard(0, ["a"], [VALID[0]])]
    selected(SelectionSpec(1), engine, shards)
    assert list(tmp_path.iterdir()) == []

    def fail(_: int) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        selected(SelectionSpec(1), engine, shards, observer=RecordingObserver(then_on_rows=fail))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_a_failure_while_a_stream_waits_ends_the_selection(engine: LocalEngine) -> None:
    chunks = ChunkQueue(2, threading.Event())
    chunks.put(ChunkShard(0, ["a"], [VALID[0]]))
    late = threading.Event()

    def shards() -> Iterator[Shard | None]:
        for chunk in chunks.shards():
            if chunk is None:
                late.set()
            yield chunk

    def fail(_: Shard) -> None:
        assert late.wait(10)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        streamed(SelectionSpec(1), engine, shards(), observer=RecordingObserver(then_on_commit=fail))


def test_a_pool_with_a_damaged_file_gives_no_result(engine: LocalEngine, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pool.parquet", random_pool(90), row_group=30)
    shards = open_pool(str(path), roots=ANYWHERE).shards
    start = pq.ParquetFile(path).metadata.row_group(2).column(1).data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 64)
    with pytest.raises(UnreadablePoolError):
        selected(SelectionSpec(1), engine, shards)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"budget": 0}, InvalidRequestError, "BUDGET_NOT_POSITIVE"),
        ({"budget": -5}, InvalidRequestError, "BUDGET_NOT_POSITIVE"),
        ({"budget": MAX_BUDGET + 1}, LimitExceededError, "BUDGET_TOO_LARGE"),
        ({"seed": -1}, InvalidRequestError, "SEED_OUT_OF_RANGE"),
        ({"seed": 2**64}, InvalidRequestError, "SEED_OUT_OF_RANGE"),
        ({"strategy": "bald"}, InvalidRequestError, "STRATEGY_UNKNOWN"),
        ({"strategy": ""}, InvalidRequestError, "STRATEGY_UNKNOWN"),
        ({"options": {"metric": "cosine"}}, InvalidRequestError, "STRATEGY_OPTION_UNKNOWN"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(
    options: dict[str, object], error: type[InvalidRequestError], reason: str
) -> None:
    SelectionSpec(MAX_BUDGET, seed=2**64 - 1)
    with pytest.raises(error) as caught:
        SelectionSpec(**{"budget": 1, **options})  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_a_strategy_that_the_models_outputs_do_not_allow_is_refused() -> None:
    manifest = bundle_pb2.Bundle(model_id="m", strategies=["random", "one of a later release"])
    for output in ("score", "probabilities", "features"):
        manifest.outputs.add(name=output)
    without_assistant = Bundle(Path(), manifest)
    for strategy in ("margin", "core_set"):
        check_strategy_served(SelectionSpec(1, strategy), without_assistant)
    with pytest.raises(
        InvalidRequestError, match=r"model m cannot serve strategy 'aalu'; choose one of"
    ) as caught:
        check_strategy_served(SelectionSpec(1, "aalu"), without_assistant)
    assert caught.value.reason == "STRATEGY_NOT_SERVED"


@pytest.mark.parametrize("outputs", [["features"], ["score", "features"], ["probabilities", "features"]])
def test_a_model_that_lacks_outputs_serves_the_strategies_that_do_not_need_them(
    engine: LocalEngine, outputs: list[str], tmp_path: Path
) -> None:
    lacking = LocalEngine(open_bundle(write_bundle(tmp_path, outputs=outputs)))
    shards = [shard for shard in stream_shards(random_pool(60), chunk=20) if shard]
    for strategy in ("aalu", "entropy", "badge", "core_set", "typiclust", "random"):
        spec = SelectionSpec(5, strategy)
        if spec.query_strategy.needs <= {*outputs}:
            picks = selected(spec, lacking, shards).picks
            expected = selected(spec, engine, shards).picks
            assert [(pick.id, pick.score) for pick in picks] == [(pick.id, pick.score) for pick in expected]
            if "probabilities" not in outputs:
                assert {(pick.predicted_class, pick.probability, pick.entropy) for pick in picks} == {
                    (-1, 0, 0)
                }
        else:
            with pytest.raises(InvalidRequestError) as caught:
                selected(spec, lacking, shards)
            assert caught.value.reason == "STRATEGY_NOT_SERVED"


@dataclass(frozen=True)
class SlowShard:
    """Reads one image after the other until it is cancelled."""

    cancelled: threading.Event
    identity: str = "slow"
    rows: int = 1000

    def items(self) -> Iterator[PoolItem]:
        for row in range(self.rows):
            if row == 60:
                self.cancelled.set()
            yield PoolItem(f"{row}", VALID[row % len(VALID)])


def test_a_cancelled_selection_reads_no_further_and_leaves_no_thread(engine: LocalEngine) -> None:
    cancelled = threading.Event()
    done, threads = RecordingObserver(), set(threading.enumerate())
    with pytest.raises(SelectionCancelledError):
        selected(SelectionSpec(1), engine, [SlowShard(cancelled)], cancelled=cancelled, observer=done)
    assert sum(done.rows) <= 60 + engine.session.encoder.batch_size
    assert set(threading.enumerate()) <= threads


def test_numeric_ids_are_written_as_a_stream_would_send_them(engine: LocalEngine, tmp_path: Path) -> None:
    table = pa.table({"id": [10, 9, 8], "image": VALID[:3]})
    pq.write_table(table, tmp_path / "pool.parquet")
    parquet = selected(SelectionSpec(3), engine, open_pool(str(tmp_path), roots=ANYWHERE).shards)
    streamed = selected(SelectionSpec(3), engine, [ChunkShard(0, ["10", "9", "8"], VALID[:3])])
    assert parquet.picks == streamed.picks
