"""A pool has one result, whoever reads it, in whatever order and batches, on however many threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import topb
from support.bundles import write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from support.servers import RunningServer, running_server
from topb_scorer.bundle import open_bundle
from topb_scorer.geometry.k_center import k_center_greedy
from topb_scorer.in_process import select_batch
from topb_scorer.scoring.model_session import ModelSession

pytestmark = pytest.mark.scorer


@pytest.fixture(scope="module")
def shuffled(data: Path) -> Path:
    rows = random_pool(300)
    random.Random(1).shuffle(rows)
    return write_parquet(data / "shuffled.parquet", rows, row_group=37)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        *((strategy, {}) for strategy in ("aalu", "entropy", "least_confidence", "margin", "random")),
        *((strategy, {}) for strategy in ("badge", "core_set", "prob_cover", "typiclust")),
        ("prob_cover", {"radius": "0.5"}),
        ("entropy", {"diversify": "4"}),
        ("aalu", {"diversify": "3", "score_weight": "0.5", "min_distance": "0.01"}),
    ],
)
def test_in_process_served_and_streamed_selections_agree_to_the_bit(
    strategy: str, options: dict[str, str], data: Path, shuffled: Path, client: topb.Client
) -> None:
    (bundle,) = (data / "models").iterdir()
    exclude = [f"img-{i:05d}" for i in range(0, 300, 9)]
    request = {"strategy": strategy, "strategy_options": options, "seed": 7, "exclude": exclude}
    expected = select_batch(data / "pool.parquet", 25, bundle=bundle, **request)

    assert len(set(expected.ids) - set(exclude)) == 25
    for batch_size in (2, 5, 64):
        again = select_batch(shuffled, 25, bundle=bundle, batch_size=batch_size, **request)
        assert again.picks == expected.picks
    rows = random_pool(300)
    random.Random(2).shuffle(rows)
    arrays = [(f"img-{i:05d}", random_image(i)) for i in range(300)]
    for pool in (data / "pool.parquet", shuffled, iter(rows), iter(arrays)):
        served = client.select_batch(pool, 25, **request)
        assert (served.picks, served.accounts) == (expected.picks, expected.accounts)
        assert served.measures == expected.measures


@pytest.mark.parametrize(("batch_size", "threads"), [(2, 1), (7, 2), (33, 3), (128, 1)])
def test_batch_size_and_threads_of_a_server_do_not_change_the_result(
    batch_size: int, threads: int, data: Path, client: topb.Client
) -> None:
    expected = client.select_batch(data / "pool.parquet", 40)
    options = (f"--batch-size={batch_size}", f"--session-threads={threads}", f"--decode-threads={threads}")
    with (
        running_server(data / "models", data, options=options) as other,
        topb.Client(other.address, timeout=60) as other_client,
    ):
        assert other_client.select_batch(data / "pool.parquet", 40).picks == expected.picks


def test_concurrent_selections_each_get_their_own_result(data: Path, server: RunningServer) -> None:
    def select(strategy: str) -> topb.SelectionResult:
        with topb.Client(server.address, timeout=60) as client:
            return client.select_batch(data / "pool.parquet", 20, strategy=strategy)

    with ThreadPoolExecutor(2) as threads:
        margin, entropy = threads.map(select, ("margin", "entropy"))
    (bundle,) = (data / "models").iterdir()
    for result in (margin, entropy):
        alone = select_batch(str(data / "pool.parquet"), 20, bundle=bundle, strategy=result.strategy)
        assert result.picks == alone.picks


def test_photos_of_different_sizes_give_the_same_result_on_every_path(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "models")
    rng = np.random.default_rng(0)
    sizes = [tuple(rng.integers(8, 200, 2).tolist()) for _ in range(40)]
    rows = [
        (f"photo-{i}", encode(random_image(i, *size), ("JPEG", "PNG", "WEBP")[i % 3]))
        for i, size in enumerate(sizes)
    ]
    pool = write_parquet(tmp_path / "photos.parquet", rows)
    expected = select_batch(str(pool), 40, bundle=bundle)
    with (
        running_server(tmp_path / "models", tmp_path) as server,
        topb.Client(server.address, timeout=60) as client,
    ):
        assert client.select_batch(pool, 40).picks == expected.picks
        assert client.select_batch(reversed(rows), 40).picks == expected.picks


def test_core_set_over_the_service_is_k_center_greedy_over_the_features(
    data: Path, client: topb.Client
) -> None:
    (path,) = (data / "models").iterdir()
    bundle = open_bundle(path)
    images = np.stack([random_image(i) for i in range(300)])
    features = ModelSession(bundle).score(images)["features"]
    expected = k_center_greedy(features, bundle.labelled_features(), 30)
    picks = client.select_batch(data / "pool.parquet", 30, strategy="core_set").picks

    assert [int(pick.id[4:]) for pick in picks] == expected.indices.tolist()
    assert [pick.radius for pick in picks] == expected.radii.tolist()
