"""What holds on each store that pools are read from, and what is particular to one of them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.pools import (
    ANYWHERE,
    IMAGE,
    LocalFolder,
    Store,
    identities,
    items,
    opened,
    parquet_bytes,
    reason_of,
    reasons,
    tar_bytes,
)
from support.vectors import blocks, fixed_lists, ids, random_vectors
from topb_scorer.errors import AccessDeniedError, InvalidRequestError, NotFoundError, UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import AllowedRoots, PoolItem, read_exclusion
from topb_scorer.pools.pool import identity_of
from topb_scorer.pools.storage import Stores

pytestmark = pytest.mark.scorer

LIMITS = ImageLimits(max_bytes=2000)


def rows_of(*ids: str) -> bytes:
    return parquet_bytes({"id": list(ids), "image": [IMAGE] * len(ids)}, row_group_size=16)


def etag_of(content: bytes) -> str:
    # The ETag of a multipart upload with one part, in the form that identities have always had.
    return str(f'"{hashlib.md5(hashlib.md5(content).digest()).hexdigest()}-1"'.encode())


def test_hidden_files_are_not_listed(store: Store) -> None:
    names = ("b.png", "cats/a.jpg", "cats/young/c.webp", "sub/b c%20d#?é.JPG", "notes.txt", "Makefile")
    for name in (*names, ".d.png", ".cache/e.png", "sub/.f.png", "sub/.git/g.png"):
        store.put(f"pool/{name}", IMAGE)
    store.put("pool/large.png", b"x" * 2001)
    store.put("pool-beside/h.png", IMAGE)
    expected = dict.fromkeys(names, "") | {"large.png": "IMAGE_TOO_LARGE"}
    expected |= dict.fromkeys(("notes.txt", "Makefile"), "FILE_NOT_AN_IMAGE")
    for uri in (store.uri("pool"), store.uri("pool/")):
        found = reasons(uri, limits=LIMITS)
        assert found == expected
        assert list(found) == sorted(expected)
    assert items(store.uri("pool/cats")) == [PoolItem("a.jpg", IMAGE), PoolItem("young/c.webp", IMAGE)]


def samples_of(*ids: str) -> bytes:
    return tar_bytes([(f"{id_}.png", IMAGE) for id_ in ids])


@pytest.mark.parametrize(
    ("suffix", "content_of", "shard_rows"),
    [("parquet", rows_of, [16] * 64 + [6]), ("tar", samples_of, [1024, 6])],
)
def test_a_pool_is_read_from_one_file_or_a_folder_of_files(
    suffix: str, content_of: Callable[..., bytes], shard_rows: list[int], store: Store
) -> None:
    ids = [f"{i:04d}" for i in range(1030)]
    one = store.put(f"pool/1.{suffix}", content_of(*ids))
    store.put(f"pool/sub/2.{suffix}", content_of("x", "y"))
    for name in (f".3.{suffix}", f".staging/4.{suffix}", "README.md"):
        store.put(f"pool/{name}", b"no part of the pool")
    for uri, rows in ((one, shard_rows), (store.uri("pool"), [*shard_rows, 2])):
        pool = opened(uri)
        assert [shard.rows for shard in pool.shards] == rows
        assert pool.rows == sum(rows)
        assert len({shard.identity for shard in pool.shards}) == len(rows)
    read = [[item.id for item in shard.items()] for shard in reversed(pool.shards)]
    assert [id_ for part in reversed(read) for id_ in part] == [*ids, "x", "y"]
    store.put(f"torn/0.{suffix}", content_of("a")[:100])
    with pytest.raises(UnreadablePoolError, match=rf"torn/0\.{suffix}"):
        opened(store.uri("torn"))


def test_excluded_ids_are_read_from_the_store(store: Store) -> None:
    uri = store.put("labelled.parquet", rows_of("a", "b"))
    assert list(read_exclusion(uri, "id", ANYWHERE)) == ["a", "b"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("2024/*/part-0.parquet", ["2024/01/0", "2024/02/0"]),
        ("*/01/*", ["2024/01/0", "2024/01/1", "2025/01/0", "2025/01/1"]),
        ("2024/0[2-9]/part-?.parquet", ["2024/02/0", "2024/02/1"]),
        ("**/part-1.parquet", ["2024/01/1", "2024/02/1", "2025/01/1", "[odd]/1"]),
        ("202[4]/**", ["2024/01/0", "2024/01/1", "2024/02/0", "2024/02/1"]),
        ("[odd]", ["[odd]/0", "[odd]/1"]),
        *((glob, []) for glob in ("*.parquet", "2024/*.parquet", "2026/*", "*/*/*/*", "2024/.*/none*")),
        *((key, []) for key in ("none", "none.parquet", "none/*.parquet", "none*")),
    ],
)
def test_a_glob_matches_segment_by_segment(glob: str, expected: list[str], store: Store) -> None:
    for folder in ("2024/01", "2024/02", "2025/01", "2024/.staging", "[odd]"):
        store.put(f"{folder}/part-0.parquet", rows_of(f"{folder}/0"))
        store.put(f"{folder}/part-1.parquet", rows_of(f"{folder}/1"))
    if expected:
        assert [item.id for item in items(store.uri(glob))] == expected
    else:
        with pytest.raises(NotFoundError) as caught:
            opened(store.uri(glob))
        assert caught.value.reason == "POOL_NOT_FOUND"


def test_a_local_segment_that_exists_is_not_a_pattern(tmp_path: Path) -> None:
    store = LocalFolder(tmp_path)
    for folder in ("[odd]", "o"):
        store.put(f"{folder}/part-0.parquet", rows_of(folder))
    assert [item.id for item in items(store.uri("[odd]/*-0.parquet"))] == ["[odd]"]
    assert [item.id for item in items(f"file://{tmp_path}/[odd]/part-%3F.parquet")] == ["[odd]"]


def test_a_glob_of_images_is_an_image_folder_with_the_matching_files(store: Store) -> None:
    for name in ("a/1.png", "a/2.jpg", "b/3.png"):
        store.put(name, IMAGE)
    assert items(store.uri("*/*.png")) == [PoolItem("a/1.png", IMAGE), PoolItem("b/3.png", IMAGE)]


@pytest.mark.parametrize(
    "key", ["root-beside", "root-beside/b.png", "", "root/../root-beside", "roo*/b.png", "*"]
)
def test_a_root_is_a_folder_and_not_a_prefix_of_names(key: str, store: Store) -> None:
    store.put("root/a.png", IMAGE)
    store.put("root-beside/b.png", IMAGE)
    roots = AllowedRoots.below([store.uri("root")])
    assert [item.id for item in items(store.uri("root"), roots=roots)] == ["a.png"]
    with pytest.raises(AccessDeniedError):
        opened(store.uri(key), roots=roots)


@pytest.mark.parametrize("list_format", ["csv", "parquet"])
def test_a_list_may_name_relative_and_absolute_paths(list_format: str, store: Store) -> None:
    image = store.put("lists/images/a b.png", IMAGE)
    paths = {
        "relative": "images/a b.png",
        "up": "../lists/images/a b.png",
        "absolute": image,
        "missing": "images/none.png",
        "large": store.put("lists/large.png", b"x" * 2001),
        "outside": "../other.png",
        "top": "../" * 30 + "other/a.png",
        "here": "/etc/hostname",
        "file": "file:///etc/hostname",
        "s3": "s3://elsewhere/a.png",
        "web": "https://example.org/a.png",
        "ftp": "ftp://example.org/a.png",
    }
    expected = dict.fromkeys(paths, "FILE_NOT_ALLOWED") | dict.fromkeys(("relative", "up", "absolute"), "")
    expected |= {"missing": "FILE_MISSING", "large": "IMAGE_TOO_LARGE"}
    if list_format == "csv":
        content = ("id,path\n" + "".join(f"{id_},{path}\n" for id_, path in paths.items())).encode()
    else:
        content = parquet_bytes({"id": list(paths), "path": list(paths.values())})
    uri = store.put(f"lists/list.{list_format}", content)
    assert reasons(uri, roots=AllowedRoots.below([store.uri("lists")]), limits=LIMITS) == expected


def test_a_file_that_is_deleted_after_the_listing_is_a_missing_row(store: Store) -> None:
    store.put("a.png", IMAGE)
    store.put("b.png", IMAGE)
    pool = opened(store.uri())
    store.remove("a.png")
    found = {item.id: reason_of(item.image) for shard in pool.shards for item in shard.items()}
    assert found == {"a.png": "FILE_MISSING", "b.png": ""}


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a.parquet", rows_of("a"), rows_of("b")),
        ("a.tar", tar_bytes([("a.png", IMAGE)]), tar_bytes([("b.png", IMAGE)])),
        ("a.csv", b"id,path\n1,a.png\n", b"id,path\n1,b.png\n"),
        ("a.png", IMAGE, IMAGE + b"\0"),
    ],
)
def test_identities_change_with_the_contents(name: str, first: bytes, second: bytes, store: Store) -> None:
    store.put(name, first)
    before = identities(store.uri())
    # The file's own URI and its folder lead to the same shard.
    assert identities(store.uri("" if name == "a.png" else name)) == before
    store.put(name, second)
    if isinstance(store, LocalFolder):
        # Clocks of file systems are coarse, and both files may be of one size.
        os.utime(store.root / name, ns=(1, 1))
    after = identities(store.uri())
    assert len(after) == len(before) == 1
    assert after != before


def test_identities_equal_those_of_earlier_releases(store: Store) -> None:
    content = rows_of("a")
    uri = store.put("pool.parquet", content)
    folder = store.uri("images")
    store.put("images/a.png", IMAGE)
    if isinstance(store, LocalFolder):
        os.utime(uri, ns=(7, 7))
        os.utime(Path(folder, "a.png"), ns=(8, 8))
        stamp = "7"
    else:
        stamp = etag_of(content)
    assert identities(uri) == [
        identity_of("parquet", uri, (len(content), stamp), ["id", "image"], 0, 1, ""),
    ]
    (found,) = Stores(ANYWHERE).location(folder).files_below()
    assert identities(folder) == [identity_of("folder", folder, [("a.png", len(IMAGE), found.modified_ns)])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local folder with all kinds of files that are not plain."""
    folder = tmp_path / "pool"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(IMAGE)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a.png").write_bytes(IMAGE)
    (folder / "a.png").write_bytes(IMAGE)
    (folder / "large.png").write_bytes(b"x" * 2001)
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "inside.png").symlink_to("a.png")
    (folder / "outside.png").symlink_to("../secret.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "linked").symlink_to("../beside")
    os.mkfifo(folder / "pipe.png")
    return folder


FILES = {
    "a.png": "",
    "inside.png": "",
    "large.png": "IMAGE_TOO_LARGE",
    "dangling.png": "FILE_MISSING",
    "outside.png": "FILE_NOT_ALLOWED",
    "device.png": "FILE_NOT_ALLOWED",
    "pipe.png": "FILE_UNREADABLE",
}


def test_a_local_file_that_cannot_be_read_is_a_row_with_a_reason(folder: Path) -> None:
    assert reasons(folder, roots=AllowedRoots.below([folder]), limits=LIMITS) == FILES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        *FILES.items(),
        ("file://{folder}/a.png", ""),
        ("{folder}/a.png", ""),
        ("../pool/a.png", ""),
        ("linked/a.png", "FILE_NOT_ALLOWED"),
        ("../secret.png", "FILE_NOT_ALLOWED"),
        ("{folder}/../secret.png", "FILE_NOT_ALLOWED"),
        ("a\0b.png", "FILE_NOT_ALLOWED"),
        (".", "FILE_UNREADABLE"),
        ("x" * 5000, "FILE_UNREADABLE"),
    ],
)
def test_a_local_path_in_a_list_is_checked_after_resolving_links(
    path: str, reason: str, folder: Path
) -> None:
    stores = Stores(AllowedRoots.below([folder]), LIMITS)
    list_file = stores.location(str(folder / "list.csv"))
    found = stores.read_image(path.format(folder=folder), list_file)
    assert reason_of(found) == reason
    assert reason or found == IMAGE


def test_device_files_and_link_loops_are_never_read(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    stores = Stores(ANYWHERE)
    list_file = stores.location(str(folder / "list.csv"))
    assert reason_of(stores.read_image("device.png", list_file)) == "FILE_UNREADABLE"
    # Python 3.13 resolves such a link to itself; reading it then fails.
    assert reason_of(stores.read_image("loop.png", list_file)) in {"FILE_NOT_ALLOWED", "FILE_UNREADABLE"}


def test_a_file_of_a_pool_that_is_a_link_to_outside_is_refused(folder: Path) -> None:
    (folder.parent / "pool.parquet").write_bytes(rows_of("secret"))
    (folder / "link.parquet").symlink_to("../pool.parquet")
    roots = AllowedRoots.below([folder])
    for uri in (folder, folder / "link.parquet", folder / "*.parquet", folder / "*/a.png"):
        with pytest.raises((AccessDeniedError, NotFoundError)):
            opened(uri, roots=roots, format="parquet")
    for name in ("pool.parquet", "nowhere.parquet"):
        with pytest.raises(AccessDeniedError):
            opened(folder.parent / name, roots=roots)


@pytest.mark.parametrize("glob", ["../*/*.parquet", "*/../../*", "../[p]ool/*", "out*/x.parquet"])
def test_a_glob_matches_no_file_outside_the_roots(glob: str, folder: Path) -> None:
    (folder.parent / "beside" / "x.parquet").write_bytes(rows_of("secret"))
    (folder / "out").symlink_to("../beside")
    (folder / "sub").mkdir()
    with pytest.raises((AccessDeniedError, NotFoundError)):
        opened(folder / "sub" / glob, roots=AllowedRoots.below([folder / "sub"]))


def test_a_local_name_that_is_not_utf8_is_a_row_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(IMAGE)
        (tmp_path / os.fsdecode(b"\xff.csv")).write_bytes(b"id,path\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(tmp_path)["\\xff.png"] == "FILE_NAME_NOT_UTF8"
    with pytest.raises(InvalidRequestError) as caught:
        opened(tmp_path, format="csv")
    assert caught.value.reason == "POOL_FILE_NAME"


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalFolder(tmp_path).put("locked/b.png", IMAGE)
    listed = os.scandir

    # Permissions do not bind the superuser.
    def scandir(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UnreadablePoolError, match=r"locked.*Permission denied") as caught:
        opened(tmp_path)
    assert caught.value.reason == "POOL_UNREADABLE"


@pytest.mark.parametrize("path", ["x" * 300, "1.parquet/below", "", "pipe"])
def test_a_path_that_the_system_cannot_read_is_unreadable(path: str, tmp_path: Path) -> None:
    (tmp_path / "1.parquet").write_bytes(rows_of("a"))
    # Listed with the folder, but there is nothing to read.
    (tmp_path / "2.parquet").symlink_to("gone.parquet")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadablePoolError) as caught:
        opened(tmp_path / path, format="parquet")
    assert caught.value.reason == "POOL_UNREADABLE"


def test_vectors_are_read_from_the_store(store: Store) -> None:
    vectors = random_vectors(300)
    content = io.BytesIO()
    np.save(content, vectors)
    store.put("arrays/v.npy", content.getvalue())
    store.put("arrays/v.ids.txt", "\n".join(ids(300)).encode())
    store.put("tables/v.parquet", parquet_bytes({"id": ids(300), "embedding": fixed_lists(vectors)}))
    for uri in ("arrays/v.npy", "arrays", "tables/v.parquet", "tables", "tables/*.parquet"):
        read = blocks(opened(store.uri(uri)))
        np.testing.assert_array_equal(np.concatenate([block.vectors for block in read]), vectors)
        assert [id_ for block in read for id_ in block.ids] == ids(300)
