"""The tests of stores, on S3; and what is particular to S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.again import repeated_with
from support.pools import ANYWHERE, IMAGE, items, opened, reasons
from support.s3 import Bucket, s3_bucket
from topb_scorer.errors import NotFoundError, UnreadablePoolError
from topb_scorer.pools import AllowedRoots, PoolItem
from topb_scorer.pools.storage import Stores
from unit.topb_scorer.pools.storage import test_stores

pytestmark = pytest.mark.scorer

globals().update(repeated_with("store", test_stores))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        yield bucket


@pytest.fixture
def store(bucket: Bucket) -> Bucket:
    return bucket.below(uuid.uuid4().hex)


def test_a_local_list_may_name_s3_images_within_the_roots(store: Bucket, tmp_path: Path) -> None:
    image = store.put("a%20b.png", IMAGE)
    (tmp_path / "list.csv").write_text(f"id,path\n1,{image}\n")
    here = AllowedRoots.below([tmp_path])
    assert reasons(tmp_path / "list.csv", roots=here) == {"1": "FILE_NOT_ALLOWED"}
    both = AllowedRoots.below([tmp_path, store.uri()])
    assert items(tmp_path / "list.csv", roots=both) == [PoolItem("1", IMAGE)]


@pytest.mark.parametrize("key", ["none", "none/*.parquet"])
def test_a_bucket_that_does_not_exist_is_not_found(key: str, bucket: Bucket) -> None:
    with pytest.raises(NotFoundError) as caught:
        opened(f"s3://no-such-bucket/{key}")
    assert caught.value.reason == "POOL_NOT_FOUND"


def test_an_s3_outage_is_an_error_and_not_a_pool_of_broken_images(
    store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a.png", IMAGE)
    (shard,) = opened(store.uri()).shards
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    away = Stores(ANYWHERE).location(store.uri())
    for read in (lambda: list(replace(shard, folder=away).items()), lambda: opened(store.uri())):  # type: ignore[type-var]
        with pytest.raises(UnreadablePoolError) as caught:
            read()
        assert caught.value.reason == "POOL_UNREADABLE"
