from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.images import encode, random_image
from support.pools import IMAGE, items, opened, reasons, tar_bytes
from topb_scorer.errors import UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import PoolItem

pytestmark = pytest.mark.scorer

OTHER = encode(random_image(2))

Members = Sequence[tuple[str, bytes]]


def write(path: Path, members: Members, **options: Any) -> Path:
    path.write_bytes(tar_bytes(members, **options))
    return path


def samples(count: int, *, first: int = 0) -> Members:
    return [
        member
        for i in range(first, first + count)
        for member in ((f"{i:05d}.jpg", IMAGE), (f"{i:05d}.cls", b"3"))
    ]


def test_a_key_is_the_name_up_to_the_first_dot_of_the_last_segment(tmp_path: Path) -> None:
    names = ["a.png", "v1.2/b.left.png", "./c.jpg", "/etc/d.JPEG", "../../e.webp", "d ü/é.png", "x/y.z/f.png"]
    path = write(tmp_path / "pool.tar", [(name, IMAGE) for name in names])
    keys = ["a", "v1.2/b", "./c", "/etc/d", "../../e", "d ü/é", "x/y.z/f"]
    assert items(path) == [PoolItem(key, IMAGE) for key in keys]


def test_a_sample_is_the_run_of_members_with_one_key(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), ("a.png", IMAGE), ("a.json", b"{}"), ("b.png", OTHER), ("a.png", OTHER)]
    path = write(tmp_path / "pool.tar", members)
    assert items(path) == [PoolItem("a", IMAGE), PoolItem("b", OTHER), PoolItem("a", OTHER)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.mask.png", "a.png"], 1),
        (["a.png", "a.mask.png"], 0),
        (["a.jpg", "a.png"], 0),
        (["a.left.png", "a.right.png"], 0),
        (["a.txt", "a.JPG"], 1),
        (["a.png.txt", "a.left.png"], 1),
    ],
)
def test_a_sample_uses_the_image_with_the_plainest_extension_or_the_first_of_several(
    names: list[str], chosen: int, tmp_path: Path
) -> None:
    images = [IMAGE, OTHER]
    path = write(tmp_path / "pool.tar", list(zip(names, images, strict=True)))
    assert items(path) == [PoolItem("a", images[chosen])]


def test_a_sample_without_an_image_is_a_row_with_a_reason(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), ("a.json", b"{}"), ("b.png", IMAGE), ("c.png", b"x" * 1001), ("d.png", b"")]
    path = write(tmp_path / "pool.tar", members)
    assert reasons(path, limits=ImageLimits(max_bytes=1000)) == {
        "a": "IMAGE_MISSING",
        "b": "",
        "c": "IMAGE_TOO_LARGE",
        "d": "",
    }


def test_members_without_a_key_are_ignored(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, type_ in (("dir.png", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, "/etc/passwd"
            tar.addfile(member)
        for name in ("README", ".hidden.png", "sub/.hidden.png", "__meta__.png", "a.png"):
            member = tarfile.TarInfo(name)
            member.size = len(IMAGE)
            tar.addfile(member, io.BytesIO(IMAGE))
    (tmp_path / "pool.tar").write_bytes(buffer.getvalue())
    assert items(tmp_path / "pool.tar") == [PoolItem("a", IMAGE)]


def test_a_key_that_is_not_utf8_is_a_row_with_a_reason(tmp_path: Path) -> None:
    content = tar_bytes([("xy.png", IMAGE), ("b.png", IMAGE)], tarfile.GNU_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("\udcffy.png")
        member.size = len(IMAGE)
        header = member.tobuf(tarfile.GNU_FORMAT, tar.encoding or "utf-8", "surrogateescape")
    (tmp_path / "pool.tar").write_bytes(header + content[512:])
    assert reasons(tmp_path / "pool.tar") == {"\\xffy": "FILE_NAME_NOT_UTF8", "b": ""}


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_cut_into_slices_without_losing_a_sample(format_: int, tmp_path: Path) -> None:
    deep = "deep" if format_ == tarfile.USTAR_FORMAT else "deep" * 60
    members = [(f"{deep}/{name}", content) for name, content in samples(2500)]
    path = write(tmp_path / "pool.tar", members, format=format_)
    pool = opened(path)
    assert [shard.rows for shard in pool.shards] == [1024, 1024, 452]
    assert len({shard.identity for shard in pool.shards}) == 3
    read = [[item.id for item in shard.items()] for shard in reversed(pool.shards)]
    assert [id_ for ids in reversed(read) for id_ in ids] == [f"{deep}/{i:05d}" for i in range(2500)]


def test_a_tar_without_samples_is_an_empty_pool(tmp_path: Path) -> None:
    assert items(write(tmp_path / "pool.tar", [])) == []
    assert items(write(tmp_path / "readme.tar", [("README", b"hello")])) == []


def cut_anywhere() -> Iterator[bytes]:
    whole = tar_bytes(samples(6))
    for length in (0, 1, *range(0, len(whole.rstrip(b"\0")) + 512, 256)):
        yield whole[:length]


def with_a_damaged_header() -> Iterator[bytes]:
    for at in (0, 100, 148, 1024, 1024 + 150):
        altered = bytearray(tar_bytes([("a.cls", b"1"), ("b.png", IMAGE)]))
        altered[at] ^= 0x15
        yield bytes(altered)


def not_one_tar() -> Iterator[bytes]:
    one = tar_bytes(samples(1))
    yield from (IMAGE, b"id,path\n" * 200, one + one, gzip.compress(one))


@pytest.mark.parametrize("contents", [cut_anywhere, with_a_damaged_header, not_one_tar])
def test_an_incomplete_or_invalid_tar_is_unreadable(
    contents: Callable[[], Iterator[bytes]], tmp_path: Path
) -> None:
    for content in contents():
        (tmp_path / "pool.tar").write_bytes(content)
        with pytest.raises(UnreadablePoolError, match=r"pool\.tar .* uncompressed tar") as caught:
            opened(tmp_path / "pool.tar")
        assert caught.value.reason == "POOL_UNREADABLE"


def test_a_tar_that_shrinks_while_it_is_read_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.tar", samples(5))
    pool = opened(path)
    write(path, samples(3))
    with pytest.raises(UnreadablePoolError, match="2 samples"):
        list(pool.shards[0].items())
