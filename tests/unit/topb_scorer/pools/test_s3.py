from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.images import encode, random_image
from support.s3 import BUCKET, Bucket, s3_bucket
from topb_scorer.errors import AccessDeniedError, NotFoundError, UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import AllowedRoots, Pool, PoolFormat, PoolItem, Unreadable, open_pool
from topb_scorer.pools.parquet import read_ids
from topb_scorer.pools.storage import Storage

pytestmark = pytest.mark.scorer

IMAGE = encode(random_image(1))
ANYWHERE = AllowedRoots.anywhere()
ROOT = AllowedRoots.below([f"s3://{BUCKET}/"])


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        yield bucket


def opened(uri: str, roots: AllowedRoots = ROOT, format_: PoolFormat | None = None) -> Pool:
    return open_pool(uri, format=format_, roots=roots, limits=ImageLimits(max_bytes=2000))


def items(uri: str, roots: AllowedRoots = ROOT, format_: PoolFormat | None = None) -> list[PoolItem]:
    return [item for shard in opened(uri, roots, format_).shards for item in shard.items()]


def reasons(uri: str, roots: AllowedRoots = ROOT) -> dict[str, str]:
    return {
        item.id: item.image.reason if isinstance(item.image, Unreadable) else "" for item in items(uri, roots)
    }


def identities(uri: str) -> list[str]:
    return [shard.identity for shard in opened(uri).shards]


def parquet_of(columns: dict[str, list[object]], row_group: int = 64) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=row_group)
    return sink.getvalue()


def tar_of(*names: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(IMAGE)
            tar.addfile(member, io.BytesIO(IMAGE))
    return sink.getvalue()


def test_parquet_is_read_as_an_object_a_folder_and_a_glob(bucket: Bucket) -> None:
    rows = {"id": [f"{i}" for i in range(40)], "image": [IMAGE] * 40}
    one = bucket.put("pq/one.parquet", parquet_of(rows, row_group=16))
    bucket.put("pq/sub/two.parquet", parquet_of({"id": ["x"], "image": [IMAGE]}))
    bucket.put("pq/.hidden/three.parquet", b"no parquet")
    bucket.put("pq-beside/four.parquet", b"no parquet")
    assert [shard.rows for shard in opened(one).shards] == [16, 16, 8]
    assert items(one) == [PoolItem(f"{i}", IMAGE) for i in range(40)]
    assert len(items(f"s3://{BUCKET}/pq")) == len(items(f"s3://{BUCKET}/pq/")) == 41
    assert [item.id for item in items(f"s3://{BUCKET}/pq/*/t?o.parquet")] == ["x"]
    assert len(items(f"s3://{BUCKET}/p[q]/**/*.parquet")) == 41
    assert read_ids(ROOT.place_of(one), "id") == rows["id"]


def test_a_folder_of_images_is_read_with_ids_below_it(bucket: Bucket) -> None:
    for key in ("a.png", "sub/b c%20d#?é.JPG", "notes.txt", ".hidden/c.png"):
        bucket.put(f"folder/{key}", IMAGE)
    bucket.put("folder/large.png", b"x" * 2001)
    assert reasons(f"s3://{BUCKET}/folder") == {
        "a.png": "",
        "large.png": "IMAGE_TOO_LARGE",
        "notes.txt": "FILE_NOT_AN_IMAGE",
        "sub/b c%20d#?é.JPG": "",
    }


def test_tars_are_read(bucket: Bucket) -> None:
    bucket.put("tars/0.tar", tar_of(*(f"{i:04d}.png" for i in range(1030))))
    bucket.put("tars/1.tar", tar_of("x.png", "y.png"))
    pool = opened(f"s3://{BUCKET}/tars")
    assert [shard.rows for shard in pool.shards] == [1024, 6, 2]
    assert [item.id for item in pool.shards[1].items()] == [f"{i}" for i in range(1024, 1030)]
    bucket.put("torn/0.tar", tar_of("a.png")[:1200])
    with pytest.raises(UnreadablePoolError, match=r"torn/0\.tar"):
        opened(f"s3://{BUCKET}/torn")


def test_lists_lead_to_objects_relative_and_absolute(bucket: Bucket, tmp_path: Path) -> None:
    image = bucket.put("lists/images/a b.png", IMAGE)
    rows = {"relative": "images/a b.png", "up": "../lists/images/a b.png", "absolute": image}
    rows |= {"gone": "images/none.png", "outside": "s3://elsewhere/a.png", "dots": "images/%2e%2e/a.png"}
    rows |= {"top": "../../other/a.png", "local": str(tmp_path)}
    expected = {"relative": "", "up": "", "absolute": "", "gone": "FILE_MISSING"}
    expected |= dict.fromkeys(("outside", "dots", "top", "local"), "FILE_NOT_ALLOWED")
    csv = "id,path\n" + "".join(f"{id_},{path}\n" for id_, path in rows.items())
    assert reasons(bucket.put("lists/list.csv", csv.encode())) == expected
    table = parquet_of({"id": list(rows), "path": list(rows.values())})
    assert reasons(bucket.put("lists/list.parquet", table)) == expected
    (tmp_path / "list.csv").write_text(f"id,path\nhere,{image}\n")
    assert reasons(str(tmp_path / "list.csv"), AllowedRoots.below([tmp_path])) == {"here": "FILE_NOT_ALLOWED"}
    both = AllowedRoots.below([tmp_path, f"s3://{BUCKET}/lists"])
    assert reasons(str(tmp_path / "list.csv"), both) == {"here": ""}


def test_identities_change_with_an_object_and_only_then(bucket: Bucket) -> None:
    contents = {
        "pool.parquet": [parquet_of({"id": [id_], "image": [IMAGE]}) for id_ in "ab"],
        "pool.tar": [tar_of("a.png"), tar_of("b.png")],
        "pool.csv": [b"id,path\n1,a.png\n", b"id,path\n1,b.png\n"],
    }
    first = {name: identities(bucket.put(f"ids/{name}", content)) for name, (content, _) in contents.items()}
    # So that the same contents bear another time.
    time.sleep(1.1)
    for name, (content, other) in contents.items():
        assert identities(bucket.put(f"ids/{name}", content)) == first[name]
        assert len(other) == len(content)
        assert identities(bucket.put(f"ids/{name}", other)) != first[name]


def test_a_slice_of_a_folder_changes_when_an_object_does(bucket: Bucket) -> None:
    bucket.put("changing/a.png", IMAGE)
    uri = f"s3://{BUCKET}/changing"
    first = identities(uri)
    assert identities(uri) == first
    bucket.put("changing/a.png", IMAGE + b"\0")
    assert identities(uri) != first


@pytest.mark.parametrize("key", ["none", "none.parquet", "none/*.parquet", "pq/none*"])
def test_what_is_not_there_is_not_found(key: str, bucket: Bucket) -> None:
    for uri in (f"s3://{BUCKET}/{key}", f"s3://no-such-bucket/{key}"):
        with pytest.raises(NotFoundError) as caught:
            opened(uri, ANYWHERE)
        assert caught.value.reason == "POOL_NOT_FOUND"


def test_a_prefix_is_a_folder_and_not_a_beginning(bucket: Bucket) -> None:
    bucket.put("root/a.png", IMAGE)
    bucket.put("root-beside/b.png", IMAGE)
    roots = AllowedRoots.below([f"s3://{BUCKET}/root"])
    assert [item.id for item in items(f"s3://{BUCKET}/root", roots)] == ["a.png"]
    for key in ("root-beside", "", "root/../root-beside", "roo*/b.png", "*"):
        with pytest.raises(AccessDeniedError):
            opened(f"s3://{BUCKET}/{key}", roots)


def test_an_object_that_goes_after_the_listing_is_a_missing_row(bucket: Bucket) -> None:
    bucket.put("going/a.png", IMAGE)
    bucket.put("going/b.png", IMAGE)
    pool = opened(f"s3://{BUCKET}/going")
    bucket.remove("going/a.png")
    read = {item.id: item.image for shard in pool.shards for item in shard.items()}
    assert isinstance(read["a.png"], Unreadable)
    assert read["a.png"].reason == "FILE_MISSING"
    assert read["b.png"] == IMAGE


def test_an_outage_is_an_error_and_not_a_pool_of_broken_images(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("outage/a.png", IMAGE)
    pool = opened(f"s3://{BUCKET}/outage")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    away = Storage(ROOT, ImageLimits())
    for shard in pool.shards:
        monkeypatch.setitem(shard.storage.__dict__, "s3", away.s3)  # type: ignore[attr-defined]
        with pytest.raises(UnreadablePoolError) as caught:
            list(shard.items())
        assert caught.value.reason == "POOL_UNREADABLE"
    with pytest.raises(UnreadablePoolError):
        opened(f"s3://{BUCKET}/outage")
