"""Selections by models whose encoder has read the pool: no image is read, and the result is the same."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.bundles import Graphs, convolutional_graph, linear_head, write_bundle
from support.command_line import topb
from support.images import random_pool, write_parquet
from support.selecting import selected
from topb_scorer.bundle import open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import LimitExceededError, SelectionCancelledError
from topb_scorer.in_process import select_batch
from topb_scorer.pools.pool import PoolItem, Shard
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring.model_logs import KeepFeatures, ModelLogs, logs_in
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import names

pytestmark = pytest.mark.scorer

ROWS = [*random_pool(90), ("corrupt", b"no image")]
SHARDS = [ChunkShard(i, [id_ for id_, _ in ROWS[i::5]], [image for _, image in ROWS[i::5]]) for i in range(5)]
SPEC = SelectionSpec(20, "entropy")
STRATEGIES = sorted({*names()} - {"vaal"})


@dataclass
class Counting(SelectionObserver):
    """Counts the rows of the pool and those that were encoded, and may cancel the selection."""

    rows: int = 0
    encoded: int = 0
    committed: int = 0
    most: int = 10**9
    cancelled: threading.Event = field(default_factory=threading.Event)

    def on_rows(self, count: int) -> None:
        self.rows += count
        if self.rows >= self.most:
            self.cancelled.set()

    def on_encoded(self, count: int) -> None:
        self.encoded += count

    def on_commit(self, shard: Shard) -> None:  # noqa: ARG002
        self.committed += 1


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[LocalEngine]:
    """Return the engines of three rounds, whose models have the same encoder."""
    folder, encoder = tmp_path_factory.mktemp("models"), convolutional_graph().encoder
    heads = [linear_head(8, 5, seed=seed) for seed in range(3)]
    paths = [
        write_bundle(folder, Graphs(encoder, head), round_=round_, encoder_frozen=True)
        for round_, head in enumerate(heads)
    ]
    return [LocalEngine(open_bundle(path), EngineSettings(batch_size=8)) for path in paths]


def logs_of(
    state: Path, engine: LocalEngine, spec: SelectionSpec = SPEC, keep: KeepFeatures = "frozen"
) -> ModelLogs:
    return logs_in(state, engine.bundle, needs_features=spec.needs_features, keep_features=keep)


def select(
    state: Path,
    engine: LocalEngine,
    observer: Counting,
    spec: SelectionSpec = SPEC,
    shards: list[ChunkShard] = SHARDS,
    keep: KeepFeatures = "frozen",
) -> object:
    logs = logs_of(state, engine, spec, keep)
    return select_from_pool(spec, engine, shards, logs, observer=observer, cancelled=observer.cancelled).picks


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_later_round_reads_no_image_and_gives_the_same_result(
    strategy: str, rounds: list[LocalEngine], tmp_path: Path
) -> None:
    select(tmp_path, rounds[0], Counting())
    for options in ({}, {"diversify": "3"}) if strategy in {"margin", "aalu"} else ({},):
        for later in rounds:
            spec, observer = SelectionSpec(20, strategy, seed=3, options=options), Counting()
            assert select(tmp_path, later, observer, spec) == selected(spec, later, SHARDS).picks
            assert (observer.rows, observer.encoded) == (len(ROWS), 0)


def test_of_a_pool_that_has_grown_only_the_new_images_are_read(
    rounds: list[LocalEngine], tmp_path: Path
) -> None:
    select(tmp_path, rounds[0], Counting(), shards=SHARDS[:3])
    observer = Counting()
    assert select(tmp_path, rounds[1], observer) == selected(SPEC, rounds[1], SHARDS).picks
    assert observer.encoded == sum(shard.rows for shard in SHARDS[3:])
    assert (observer.rows, observer.committed) == (len(ROWS), 5)


@pytest.mark.parametrize("strategy", ["entropy", "core_set"])
def test_an_altered_shard_of_features_is_encoded_again(
    strategy: str, rounds: list[LocalEngine], tmp_path: Path
) -> None:
    spec = SelectionSpec(20, strategy)
    select(tmp_path, rounds[0], Counting(), spec)
    select(tmp_path, rounds[1], Counting(), spec)
    expected = selected(spec, rounds[1], SHARDS).picks
    # Without scores, the head needs the features; with them, only core_set does.
    for scores_left in (False, True):
        path = min((tmp_path / "features").rglob("*.parquet"))
        path.write_bytes(path.read_bytes()[:-9])
        if not scores_left:
            shutil.rmtree(tmp_path / "scores")
        observer = Counting()
        assert select(tmp_path, rounds[1], observer, spec) == expected
        needed = not scores_left or strategy == "core_set"
        assert (observer.encoded > 0) == needed
        assert observer.encoded <= max(shard.rows for shard in SHARDS)
        assert observer.rows == len(ROWS)


@pytest.mark.parametrize(
    ("keep", "frozen", "strategy", "kept"),
    [
        ("frozen", True, "entropy", 5),
        ("frozen", False, "entropy", 0),
        ("always", False, "entropy", 5),
        ("needed", True, "entropy", 0),
        ("needed", False, "typiclust", 5),
    ],
)
def test_features_are_kept_as_asked_or_if_they_are_needed(
    keep: KeepFeatures, frozen: bool, strategy: str, kept: int, tmp_path: Path
) -> None:
    engine = LocalEngine(open_bundle(write_bundle(tmp_path / "models", encoder_frozen=frozen)))
    select(tmp_path / "state", engine, Counting(), SelectionSpec(5, strategy), keep=keep)
    assert len([*(tmp_path / "state").glob("features/*/*/*.parquet")]) == kept


def test_what_another_process_encodes_meanwhile_is_not_encoded_again(
    rounds: list[LocalEngine], tmp_path: Path
) -> None:
    others = Counting()

    class Meeting(ChunkShard):
        def items(self) -> Iterator[PoolItem]:
            # While the first shard is read, a model with the same encoder encodes the rest.
            select(tmp_path, rounds[1], others, shards=SHARDS[2:])
            yield from super().items()

    observer = Counting()
    first = Meeting(SHARDS[0].seq, SHARDS[0].ids, SHARDS[0].images)
    picks = select(tmp_path, rounds[0], observer, shards=[first, *SHARDS[1:]])
    assert picks == selected(SPEC, rounds[0], SHARDS).picks
    assert observer.encoded + others.encoded == observer.rows == len(ROWS)


@pytest.mark.slow
def test_rounds_that_are_stopped_anywhere_and_continued_give_the_same_result(
    rounds: list[LocalEngine], tmp_path: Path, rng: random.Random
) -> None:
    for case in range(12):
        state, spec = tmp_path / str(case), SelectionSpec(20, rng.choice(["entropy", "badge", "aalu"]))
        encoded = 0
        for engine in rounds:
            for _ in range(rng.randint(0, 3)):
                stopped = Counting(most=rng.randint(1, len(ROWS)))
                with suppress(SelectionCancelledError):
                    select(state, engine, stopped, spec)
                encoded += stopped.encoded
            observer = Counting()
            assert select(state, engine, observer, spec) == selected(spec, engine, SHARDS).picks
            assert observer.rows == len(ROWS)
            assert engine is rounds[0] or observer.encoded == 0


def test_a_disk_without_room_for_the_features_is_told_before_an_image_is_read(
    rounds: list[LocalEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(ROWS) * (80 + 8 * 4) - 1))
    for spec, advice in ((SPEC, "--keep-features needed"), (SelectionSpec(5, "badge"), "topb scores prune")):
        observer = Counting()
        with pytest.raises(LimitExceededError, match=advice) as caught:
            select(tmp_path, rounds[0], observer, spec)
        assert caught.value.reason == "FEATURES_OVER_DISK"
        assert observer.encoded == 0
    select(tmp_path, rounds[0], Counting(), keep="needed")
    monkeypatch.undo()
    select(tmp_path, rounds[0], Counting(), SelectionSpec(5, "badge"))


def test_selections_in_process_share_a_directory(rounds: list[LocalEngine], tmp_path: Path) -> None:
    pool, state = write_parquet(tmp_path / "pool.parquet", ROWS), tmp_path / "state"
    first = select_batch(pool, 20, bundle=rounds[0].bundle.path, state=state)
    assert [*state.glob("features/*/*/*.parquet")]
    # Then neither the images nor the first model's scores are needed.
    (scores,) = state.glob("scores/*")
    shutil.rmtree(scores)
    for encoder in (rounds[0], rounds[1]):
        again = select_batch(pool, 20, bundle=encoder.bundle.path, state=state)
        assert again.picks == select_batch(pool, 20, bundle=encoder.bundle.path).picks
    assert topb("scores", "prune", "--state", state, "--max-bytes", "0").exit_code == 0
    assert not [*state.rglob("*.parquet")]
    assert first.picks == select_batch(pool, 20, bundle=rounds[0].bundle.path, state=state).picks
