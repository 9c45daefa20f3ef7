"""A pool has one result, whoever reads it, in whatever order and batches, on however many threads."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import topb
from support.bundles import write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from support.servers import RunningServer, running_server
from topb_scorer.in_process import select_batch

pytestmark = pytest.mark.scorer

STRATEGIES = ("aalu", "entropy", "least_confidence", "margin", "random")


@pytest.fixture(scope="module")
def shuffled(data: Path) -> Path:
    rows = random_pool(300)
    random.Random(1).shuffle(rows)
    return write_parquet(data / "shuffled.parquet", rows, row_group=37)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_process_served_and_streamed_selections_agree_to_the_bit(
    strategy: str, data: Path, shuffled: Path, client: topb.Client
) -> None:
    (bundle,) = (data / "models").iterdir()
    expected = select_batch(str(data / "pool.parquet"), 25, bundle=bundle, strategy=strategy, seed=7)

    assert len(expected.picks) == 25
    for batch_size in (2, 5, 64):
        again = select_batch(
            str(shuffled), 25, bundle=bundle, strategy=strategy, seed=7, batch_size=batch_size
        )
        assert again.picks == expected.picks
    for pool in (data / "pool.parquet", shuffled):
        served = client.select_batch(pool, 25, strategy=strategy, seed=7)
        assert (served.picks, served.accounts) == (expected.picks, expected.accounts)
    rows = random_pool(300)
    random.Random(2).shuffle(rows)
    streamed = client.select_batch(iter(rows), 25, strategy=strategy, seed=7)
    assert (streamed.picks, streamed.accounts) == (expected.picks, expected.accounts)
    arrays = [(f"img-{i:05d}", random_image(i)) for i in range(300)]
    as_arrays = client.select_batch(iter(arrays), 25, strategy=strategy, seed=7)
    assert as_arrays.picks == expected.picks


@pytest.mark.parametrize(("batch_size", "threads"), [(2, 1), (7, 2), (33, 3), (128, 1)])
def test_a_servers_batch_size_and_threads_do_not_show_in_the_result(
    batch_size: int, threads: int, data: Path, client: topb.Client
) -> None:
    expected = client.select_batch(data / "pool.parquet", 40)
    options = (
        f"--batch-size={batch_size}",
        f"--session-threads={threads}",
        f"--decode-threads={threads}",
    )
    with (
        running_server(data / "models", data, options=options) as other,
        topb.Client(other.address, timeout=60) as other_client,
    ):
        assert other_client.select_batch(data / "pool.parquet", 40).picks == expected.picks


def test_several_selections_at_once_each_get_their_own_result(data: Path, server: RunningServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def select(strategy: str) -> topb.SelectionResult:
        with topb.Client(server.address, timeout=60) as client:
            return client.select_batch(data / "pool.parquet", 20, strategy=strategy)

    with ThreadPoolExecutor(2) as threads:
        margin, entropy = threads.map(select, ("margin", "entropy"))
    (bundle,) = (data / "models").iterdir()
    for result in (margin, entropy):
        alone = select_batch(str(data / "pool.parquet"), 20, bundle=bundle, strategy=result.strategy)
        assert result.picks == alone.picks


def test_photos_of_differing_sizes_agree_over_every_path(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("core_set", {}),
        ("badge", {}),
        ("typiclust", {}),
        ("prob_cover", {}),
        ("prob_cover", {"radius": "0.5"}),
        ("entropy", {"diversify": "4"}),
        ("aalu", {"diversify": "3", "score_weight": "0.5", "min_distance": "0.01"}),
    ],
)
def test_set_based_selections_agree_however_the_pool_is_read(
    strategy: str, options: dict[str, str], data: Path, shuffled: Path, client: topb.Client
) -> None:
    (bundle,) = (data / "models").iterdir()
    exclude = [f"img-{i:05d}" for i in range(0, 300, 9)]
    expected = select_batch(
        str(data / "pool.parquet"),
        25,
        bundle=bundle,
        strategy=strategy,
        strategy_options=options,
        exclude=exclude,
    )
    for pool in (shuffled, iter(random_pool(300))):
        result = client.select_batch(pool, 25, strategy=strategy, strategy_options=options, exclude=exclude)
        assert result.picks == expected.picks
        assert result.accounts == expected.accounts
        assert result.measures == expected.measures

    assert len(set(expected.ids)) == 25
    assert not set(expected.ids) & set(exclude)
    if strategy == "core_set":
        radii = [pick.radius for pick in expected.picks]
        assert radii == sorted(radii, reverse=True)
        assert min(radii) > 0
    if "diversify" in options:
        assert expected.measures["radius"] <= expected.measures["radius_of_top"]
        assert expected.measures["mean_score"] <= expected.measures["mean_score_of_top"]


def test_core_set_over_the_service_is_k_center_greedy_over_the_features(
    data: Path, client: topb.Client
) -> None:
    from topb_scorer.bundle import open_bundle
    from topb_scorer.geometry.k_center import k_center_greedy
    from topb_scorer.scoring.session import ScoringSession

    (path,) = (data / "models").iterdir()
    bundle = open_bundle(path)
    images = np.stack([random_image(i) for i in range(300)])
    features = ScoringSession(bundle.graph).score(images, ["features"])["features"]
    expected = k_center_greedy(features, bundle.labelled_features(), 30)
    picks = client.select_batch(data / "pool.parquet", 30, strategy="core_set").picks

    assert [int(pick.id[4:]) for pick in picks] == expected.indices.tolist()
    assert [pick.radius for pick in picks] == expected.radii.tolist()
