"""Selections from vectors: with the head of a model, and without a model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.bundles import convolutional_graph, write_bundle
from support.images import random_image, random_pool, write_parquet
from support.selecting import outcome, streamed
from support.vectors import ids, random_probabilities, random_vectors, write_vectors
from topb.results import SelectionResult
from topb.v1 import bundle_pb2
from topb_scorer import imaging
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.cache import EngineCache
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import InvalidRequestError, SelectionCancelledError
from topb_scorer.in_process import select_batch
from topb_scorer.pools import AllowedRoots, open_pool
from topb_scorer.pools.stream import ChunkShard, VectorChunkShard
from topb_scorer.pools.vectors import VectorLayout
from topb_scorer.scoring.model_logs import ModelLogs, logs_below
from topb_scorer.scoring.model_session import ModelSession
from topb_scorer.scoring.no_model import NO_MODEL, NoModel
from topb_scorer.scoring.vector_rows import check_vectors_fit
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import names, served_by

pytestmark = pytest.mark.scorer

PHOTOS = 300
WITHOUT_MODEL = {"random", "core_set", "typiclust", "prob_cover"}
WITH_PROBABILITIES = {"entropy", "margin", "least_confidence", "badge"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.parquet"
    write_parquet(path, random_pool(PHOTOS), row_group=64)
    return path


@pytest.fixture(scope="module")
def features(bundle: Bundle, photos: Path) -> Path:
    """The features of the photos, as a pool of vectors in shards of other sizes."""
    images = [
        (item.id, imaging.load(item.image, bundle.input))
        for shard in open_pool(str(photos), roots=AllowedRoots.anywhere()).image_shards
        for item in shard.items()
    ]
    encoded = ModelSession(bundle).encoder.apply({"images": np.stack([image for _, image in images])})
    names_ = [id_ for id_, _ in images]
    return write_vectors(photos.parent / "features.parquet", encoded["features"], row_group=97, names=names_)


def test_photos_and_their_features_give_the_same_picks_for_every_strategy(
    bundle: Bundle, photos: Path, features: Path, tmp_path: Path
) -> None:
    without_encoder = write_bundle(tmp_path, encoder=False)
    served = served_by(bundle.strategies, bundle.output_shapes)
    assert served == {*names()} - {"vaal"}
    for strategy in sorted(served):
        of_photos = select_batch(photos, 40, bundle=bundle.path, strategy=strategy)
        of_features = select_batch(features, 40, bundle=bundle.path, strategy=strategy)
        by_head = select_batch(features, 40, bundle=without_encoder, strategy=strategy)
        assert outcome(of_photos) == outcome(of_features) == outcome(by_head)
        assert len(of_photos) == 40


def test_the_vectors_are_rounded_as_the_encoder_rounds_its_features(bundle: Bundle, tmp_path: Path) -> None:
    rounding = replace(bundle, manifest=bundle_pb2.Bundle())
    rounding.manifest.CopyFrom(bundle.manifest)
    rounding.manifest.feature_type = bundle_pb2.FEATURE_TYPE_FLOAT16
    exact = random_vectors(50)
    halves = exact.astype(np.float16).astype(np.float32)

    def log_of(model: Bundle, vectors: np.ndarray) -> list[float]:
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        logs = logs_below(directory, needs_features=True, durable=False)
        shard = VectorChunkShard(0, ids(50), vectors, np.zeros((50, 0), np.float32))
        _fill(LocalEngine(model), logs, [shard])
        (rows,) = logs.scores.read([shard.identity])
        (outputs,) = logs.features.read_outputs(shard.identity)
        return [*outputs["features"].ravel().tolist(), *rows.score.tolist()]

    assert log_of(rounding, exact) == log_of(bundle, halves) != log_of(bundle, exact)


def _fill(engine: LocalEngine, logs: ModelLogs, shards: list) -> None:
    engine.fill(logs, shards, cancelled=threading.Event(), on_rows=lambda _: None, on_commit=lambda _: None)


@pytest.mark.parametrize("strategy", ["random", "typiclust"])
def test_a_pool_in_which_all_vectors_are_missing_has_nothing_to_pick(strategy: str, tmp_path: Path) -> None:
    column = pa.array([None, None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a", "b"], "embedding": column}), tmp_path / "pool.parquet")
    result = select_batch(tmp_path / "pool.parquet", 1, strategy=strategy)
    assert (len(result), dict(result.accounts.skipped)) == (0, {"VECTOR_MISSING": 2})


def test_images_and_vectors_may_share_a_stream(bundle: Bundle, engine: LocalEngine) -> None:
    photos = np.stack([random_image(seed) for seed in range(20)])
    features = ModelSession(bundle).encoder.apply({"images": photos})["features"]
    none = np.zeros((5, 0), np.float32)

    def chunk(seq: int, *, as_vectors: bool) -> ChunkShard | VectorChunkShard:
        part = slice(5 * seq, 5 * seq + 5)
        if as_vectors:
            return VectorChunkShard(seq, ids(20)[part], features[part], none)
        return ChunkShard(seq, ids(20)[part], photos[part])

    def result(kinds: list[bool]) -> SelectionResult:
        shards = [None, *(chunk(seq, as_vectors=kind) for seq, kind in enumerate(kinds)), None]
        return streamed(SelectionSpec(20), engine, shards)

    expected = outcome(result([False] * 4))
    for kinds in ([True] * 4, [False, True, True, False], [True, False, True, False]):
        assert outcome(result(kinds)) == expected


@pytest.mark.parametrize("strategy", sorted(WITHOUT_MODEL | WITH_PROBABILITIES))
def test_without_a_model_the_pool_needs_what_the_strategy_needs(strategy: str, tmp_path: Path) -> None:
    vectors, probabilities = random_vectors(200), random_probabilities(200)
    bare = write_vectors(tmp_path / "bare.parquet", vectors)
    full = write_vectors(tmp_path / "full.parquet", vectors, probabilities)
    result = select_batch(full, 10, strategy=strategy)
    assert (result.model, len(result), result.accounts.scored) == (NO_MODEL, 10, 200)
    assert {pick.predicted_class for pick in result} <= {0, 1, 2, 3}
    if strategy in WITHOUT_MODEL:
        without = select_batch(bare, 10, strategy=strategy)
        assert without.ids == result.ids
        assert {pick.predicted_class for pick in without} == {-1}
    else:
        with pytest.raises(InvalidRequestError, match="without probabilities cannot serve") as caught:
            select_batch(bare, 10, strategy=strategy)
        assert caught.value.reason == "STRATEGY_NOT_SERVED"


@pytest.mark.parametrize("strategy", ["entropy", "margin", "least_confidence"])
def test_without_a_model_the_probabilities_are_those_of_the_pool(strategy: str, tmp_path: Path) -> None:
    probabilities = random_probabilities(200).astype(np.float64)
    path = write_vectors(tmp_path / "full.parquet", random_vectors(200), probabilities)
    first, second = -np.sort(-probabilities.astype(np.float32).astype(np.float64), axis=1)[:, :2].T
    expected = {
        "entropy": -(probabilities * np.log(probabilities)).sum(axis=1),
        "margin": 1 - (first - second),
        "least_confidence": 1 - first,
    }[strategy]
    best = [f"row-{row}" for row in np.argsort(-expected)[:20]]
    assert list(select_batch(path, 20, strategy=strategy).ids) == best


def test_excluded_vectors_count_as_labelled(tmp_path: Path) -> None:
    vectors = random_vectors(100)
    vectors[1] = vectors[0]
    path = write_vectors(tmp_path / "v.parquet", vectors)
    result = select_batch(path, 98, strategy="core_set", exclude=["row-0", "row-2"])
    # Row 1 has the content of row 0 under another id, but the exclusion gives only the id.
    assert result.accounts.excluded == 2
    assert result[-1].id == "row-1"
    assert result[-1].radius == 0


def test_vectors_of_another_width_than_the_features_of_the_model_are_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = write_vectors(tmp_path / "v.parquet", random_vectors(3, 9))
    with pytest.raises(InvalidRequestError, match=rf"9 numbers, but .*{bundle.model_id}.* 8 n") as caught:
        select_batch(path, 1, bundle=bundle.path)
    assert caught.value.reason == "VECTOR_WIDTH"


def test_a_head_that_takes_more_than_features_needs_images(bundle: Bundle) -> None:
    manifest = bundle_pb2.Bundle()
    manifest.CopyFrom(bundle.manifest)
    manifest.encoder_outputs.add(name="latent", shape=[3])
    with pytest.raises(InvalidRequestError, match="latent") as caught:
        check_vectors_fit(Bundle(bundle.path, manifest), VectorLayout(8))
    assert caught.value.reason == "IMAGES_NEEDED"


def test_images_need_a_model_with_an_encoder(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--bundle or --server") as caught:
        select_batch(photos, 1, strategy="random")
    assert caught.value.reason == "MODEL_NEEDED"
    with pytest.raises(InvalidRequestError, match="vectors of 8 numbers") as caught:
        select_batch(photos, 1, bundle=write_bundle(tmp_path, encoder=False))
    assert caught.value.reason == "MODEL_WITHOUT_ENCODER"


@pytest.mark.parametrize("strategy", ["aalu", "vaal"])
def test_a_strategy_that_needs_a_model_is_refused_before_the_pool_is_opened(strategy: str) -> None:
    with pytest.raises(InvalidRequestError, match="typiclust") as caught:
        select_batch("/nowhere", 1, strategy=strategy)
    assert caught.value.reason == "MODEL_NEEDED"


def test_a_chunk_of_another_size_is_refused() -> None:
    model = NoModel.with_outputs_of(VectorLayout(8, 4))
    shards = [VectorChunkShard(0, ids(3), random_vectors(3), random_probabilities(3, 5))]
    with pytest.raises(InvalidRequestError, match=r"5 probabilities, but .* 4 probabilities") as caught:
        streamed(SelectionSpec(1, "random"), LocalEngine(model), shards)
    assert caught.value.reason == "VECTOR_WIDTH"


def test_engines_without_graphs_are_not_mixed_up() -> None:
    cache = EngineCache(EngineSettings())
    one, other = (cache.get(NoModel.with_outputs_of(VectorLayout(width))) for width in (3, 4))
    assert one.bundle.output_shape("features") == (3,)
    assert other.bundle.output_shape("features") == (4,)


def test_a_cancelled_selection_from_vectors_stops(tmp_path: Path) -> None:
    pool = open_pool(
        str(write_vectors(tmp_path / "v.parquet", random_vectors(50))), roots=AllowedRoots.anywhere()
    )
    assert pool.vectors is not None
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(SelectionCancelledError):
        select_from_pool(
            SelectionSpec(1, "random"),
            LocalEngine(NoModel.with_outputs_of(pool.vectors)),
            pool.shards,
            cancelled=cancelled,
        )


def test_rows_that_cannot_be_used_are_in_the_accounts(tmp_path: Path) -> None:
    vectors = random_vectors(50)
    vectors[3, 2] = np.nan
    result = select_batch(write_vectors(tmp_path / "v.parquet", vectors), 50, strategy="core_set")
    assert (len(result), dict(result.accounts.skipped)) == (49, {"VECTOR_NOT_FINITE": 1})
    assert result.accounts.skipped_examples[0].id == "row-3"
    assert "element 2 of the vector is nan" in result.accounts.skipped_examples[0].detail


def test_a_model_ignores_the_probabilities_of_the_pool(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "models", convolutional_graph(seed=1)))
    vectors = random_vectors(50)
    nonsense = np.full((50, 3), 7.0, np.float32)
    bare = select_batch(write_vectors(tmp_path / "a.parquet", vectors), 50, bundle=bundle.path)
    beside = select_batch(write_vectors(tmp_path / "b.parquet", vectors, nonsense), 50, bundle=bundle.path)
    assert outcome(bare) == outcome(beside)


def test_the_scores_of_vectors_are_kept_in_a_state_directory(tmp_path: Path) -> None:
    full = write_vectors(tmp_path / "full.parquet", random_vectors(100), random_probabilities(100))
    bare = write_vectors(tmp_path / "bare.parquet", random_vectors(100, 5))
    for strategy in ("entropy", "core_set", "badge", "typiclust"):
        once = select_batch(full, 10, strategy=strategy).picks
        for _ in range(2):
            assert select_batch(full, 10, strategy=strategy, state=tmp_path / "state").picks == once
    # Pools of other sizes share the logs.
    assert len(select_batch(bare, 10, strategy="core_set", state=tmp_path / "state")) == 10
