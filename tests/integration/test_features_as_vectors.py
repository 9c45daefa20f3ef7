"""The features of images, as a pool of vectors, give the same picks as the images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import topb
from support.bundles import write_bundle
from support.images import encode, random_image, write_parquet
from support.servers import running_server
from support.vectors import write_vectors
from topb_scorer.in_process import select_batch
from topb_scorer.strategies import names

pytestmark = pytest.mark.scorer

PHOTOS, BUDGET = 150, 30
STRATEGIES = tuple((name, {}) for name in names() if name != "vaal")  # VAAL scores latent means of images.
DIVERSIFIED = (("margin", {"diversify": "2"}), ("aalu", {"diversify": "3"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bundle in `models/`, and JPEG photos of several sizes in `photos.parquet`."""
    folder = tmp_path_factory.mktemp("pools")
    write_bundle(folder / "models")
    photos = [(f"{i:03d}", encode(random_image(i, 20 + i % 9, 40 - i % 7), "JPEG")) for i in range(PHOTOS)]
    write_parquet(folder / "photos.parquet", photos)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    (path,) = (folder / "models").iterdir()
    return path


@pytest.fixture(scope="module")
def features(folder: Path, bundle: Path) -> dict[str, NDArray[np.float32]]:
    """Return the features (D,) that a selection from the photos kept, by id; also as `features.parquet`."""
    select_batch(folder / "photos.parquet", 1, bundle=bundle, strategy="core_set", state=folder / "state")
    kept = pa.concat_tables(map(pq.read_table, (folder / "state" / "features").rglob("*.parquet")))
    values = map(np.frombuffer, kept["features"].to_pylist(), [np.float32] * PHOTOS)
    found = dict(zip(kept["id"].to_pylist(), values, strict=True))
    assert len(found) == PHOTOS
    write_vectors(folder / "features.parquet", np.stack([*found.values()]), names=[*found])
    return found


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[topb.Client]:
    with running_server(folder / "models") as server, topb.Client(server.address, timeout=60) as client:
        yield client


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES + DIVERSIFIED, ids=str)
def test_features_give_the_picks_of_the_images(
    strategy: str,
    options: dict[str, str],
    folder: Path,
    bundle: Path,
    features: dict[str, NDArray[np.float32]],
    client: topb.Client,
) -> None:
    of_images = select_batch(
        folder / "photos.parquet", BUDGET, bundle=bundle, strategy=strategy, strategy_options=options
    )
    of_file = select_batch(
        folder / "features.parquet", BUDGET, bundle=bundle, strategy=strategy, strategy_options=options
    )
    streamed = client.select_batch(features.items(), BUDGET, strategy=strategy, strategy_options=options)
    assert len(of_images) == BUDGET
    assert of_images.picks == of_file.picks == streamed.picks
    assert of_images.accounts == of_file.accounts == streamed.accounts
