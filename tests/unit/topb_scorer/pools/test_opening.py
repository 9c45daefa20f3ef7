from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from support.images import encode, random_image, write_parquet
from topb_scorer.errors import AccessDeniedError, InvalidRequestError, NotFoundError, UnreadablePoolError
from topb_scorer.pools import AllowedRoots, PoolFormat, open_pool

pytestmark = pytest.mark.scorer

IMAGE = encode(random_image(1))
ANYWHERE = AllowedRoots.anywhere()


def ids(uri: str | Path, format_: PoolFormat | None = None, roots: AllowedRoots = ANYWHERE) -> list[str]:
    pool = open_pool(str(uri), format=format_, roots=roots)
    return sorted(item.id for shard in pool.shards for item in shard.items())


def write_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(f"{path.stem}.png")
        member.size = len(IMAGE)
        tar.addfile(member, io.BytesIO(IMAGE))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("2024/01", "2024/02", "2025/01", "2024/.staging", "[odd]"):
        (tmp_path / folder).mkdir(parents=True)
        write_parquet(tmp_path / folder / "part-0.parquet", [(f"{folder}/0", IMAGE)])
        write_parquet(tmp_path / folder / "part-1.parquet", [(f"{folder}/1", IMAGE)])
    return tmp_path


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("2024/*/part-0.parquet", ["2024/01/0", "2024/02/0"]),
        ("*/01/*", ["2024/01/0", "2024/01/1", "2025/01/0", "2025/01/1"]),
        ("2024/0[2-9]/part-?.parquet", ["2024/02/0", "2024/02/1"]),
        ("**/part-1.parquet", ["2024/01/1", "2024/02/1", "2025/01/1", "[odd]/1"]),
        ("202[4]/**", ["2024/01/0", "2024/01/1", "2024/02/0", "2024/02/1"]),
        ("[odd]/*-0.parquet", ["[odd]/0"]),
        ("[odd]", ["[odd]/0", "[odd]/1"]),
    ],
)
def test_a_glob_takes_what_matches_by_segments(glob: str, expected: list[str], tree: Path) -> None:
    assert ids(tree / glob) == expected
    assert ids(f"file://{tree}/{glob.replace('?', '%3F')}") == expected


@pytest.mark.parametrize("glob", ["*.parquet", "2024/*.parquet", "2026/*", "*/*/*/*", "2024/.*/none*"])
def test_a_glob_without_a_match_is_not_found(glob: str, tree: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        ids(tree / glob)
    assert caught.value.reason == "POOL_NOT_FOUND"


@pytest.mark.parametrize(
    "glob", ["../*/*.parquet", "*/../../*", "../[o]utside/*", "out*/x.parquet", "*.parquet"]
)
def test_a_glob_leads_nowhere_outside_the_roots(glob: str, tree: Path) -> None:
    root = tree / "2024"
    (tree / "outside").mkdir()
    write_parquet(tree / "outside" / "x.parquet", [("secret", IMAGE)])
    (root / "out").symlink_to("../outside")
    (root / "x.parquet").symlink_to("../outside/x.parquet")
    with pytest.raises((AccessDeniedError, NotFoundError)):
        ids(root / glob, roots=AllowedRoots.below([root]))


def test_a_glob_of_images_is_an_image_folder_of_those_that_match(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.jpg", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGE)
    assert ids(tmp_path / "*" / "*.png") == ["a/1.png", "b/3.png"]


def test_a_format_that_is_named_takes_files_of_any_name(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pool", [("a", IMAGE)])
    with pytest.raises(InvalidRequestError) as caught:
        ids(path)
    assert caught.value.reason == "POOL_FORMAT"
    assert ids(path, PoolFormat.PARQUET) == ["a"]
    assert ids(tmp_path / "po*", PoolFormat.PARQUET) == ["a"]
    with pytest.raises(UnreadablePoolError):
        ids(path, PoolFormat.WEBDATASET)


def test_a_folder_with_parquet_files_and_tars_needs_its_format_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "00000.parquet", [("row", IMAGE)])
    write_tar(tmp_path / "00000.tar")
    with pytest.raises(InvalidRequestError, match=r"\.parquet and \.tar") as caught:
        ids(tmp_path)
    assert caught.value.reason == "POOL_FORMAT"
    assert ids(tmp_path, PoolFormat.WEBDATASET) == ["00000"]
    assert ids(tmp_path, PoolFormat.PARQUET) == ["row"]


def test_suffixes_count_whatever_their_case(tmp_path: Path) -> None:
    write_tar(tmp_path / "pool.TAR")
    assert ids(tmp_path) == ["pool"]
    assert ids(tmp_path / "pool.TAR") == ["pool"]


def test_a_dangling_link_to_a_file_of_the_pool_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "1.parquet", [("a", IMAGE)])
    (tmp_path / "2.parquet").symlink_to("gone.parquet")
    with pytest.raises(UnreadablePoolError, match=r"gone\.parquet"):
        ids(tmp_path)


def test_over_http_no_pool_is_read(tmp_path: Path) -> None:
    for roots in (ANYWHERE, AllowedRoots.below(["https://example.org/"])):
        with pytest.raises(InvalidRequestError, match="over http") as caught:
            ids("https://example.org/pool.parquet", roots=roots)
        assert caught.value.reason == "POOL_URI"
