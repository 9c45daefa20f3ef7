from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.images import encode, random_image
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.imaging import ImageLimits
from topb_scorer.pools import AllowedRoots, Pool, PoolFormat, PoolItem, Shard, Unreadable, open_pool
from topb_scorer.pools.folder import is_image_name

pytestmark = pytest.mark.scorer

IMAGE = encode(random_image(1))
ANYWHERE = AllowedRoots.anywhere()


def opened(folder: Path, roots: AllowedRoots = ANYWHERE, limits: ImageLimits | None = None) -> Pool:
    return open_pool(str(folder), format=PoolFormat.IMAGE_FOLDER, roots=roots, limits=limits or ImageLimits())


def items(pool: Pool) -> list[PoolItem]:
    return [item for shard in pool.shards for item in shard.items()]


def reasons(pool: Pool) -> dict[str, str]:
    return {item.id: item.image.reason if isinstance(item.image, Unreadable) else "" for item in items(pool)}


def ids_of(shard: Shard) -> tuple[str, ...]:
    return tuple(item.id for item in shard.items())


def fill(folder: Path, *names: str, content: bytes = IMAGE) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_an_id_is_the_path_relative_to_the_folder(pool_folder: Path) -> None:
    fill(pool_folder, "b.png", "cats/a.jpg", "cats/young/c.webp", "é ü.png", "a#b%20?.png")
    assert items(opened(pool_folder)) == [
        PoolItem(id_, IMAGE) for id_ in ("a#b%20?.png", "b.png", "cats/a.jpg", "cats/young/c.webp", "é ü.png")
    ]


def test_a_folder_of_images_is_known_without_its_format(pool_folder: Path) -> None:
    fill(pool_folder, "notes.txt", "deep/down/a.JPG")
    assert reasons(open_pool(str(pool_folder), roots=ANYWHERE)) == {
        "deep/down/a.JPG": "",
        "notes.txt": "FILE_NOT_AN_IMAGE",
    }


def test_a_folder_without_images_is_a_pool_only_if_its_format_is_named(pool_folder: Path) -> None:
    fill(pool_folder, "notes.txt")
    with pytest.raises(InvalidRequestError) as caught:
        open_pool(str(pool_folder), roots=ANYWHERE)
    assert caught.value.reason == "POOL_FORMAT"
    assert reasons(opened(pool_folder)) == {"notes.txt": "FILE_NOT_AN_IMAGE"}


def test_an_empty_folder_is_an_empty_pool(pool_folder: Path) -> None:
    assert opened(pool_folder).rows == 0
    assert items(opened(pool_folder)) == []


def test_a_file_is_no_folder(pool_folder: Path) -> None:
    fill(pool_folder, "a.png")
    with pytest.raises(InvalidRequestError) as caught:
        opened(pool_folder / "a.png")
    assert caught.value.reason == "POOL_FORMAT"


def test_hidden_files_and_folders_are_no_part_of_the_pool(pool_folder: Path) -> None:
    fill(pool_folder, "a.png", ".b.png", ".cache/c.png", "sub/.d.png", "sub/.git/e.png")
    assert reasons(opened(pool_folder)) == {"a.png": ""}


def test_what_is_not_named_as_an_image_is_a_row_with_a_reason(pool_folder: Path) -> None:
    fill(pool_folder, "a.png", "labels.csv", "Makefile", "archive.tar.gz")
    assert reasons(opened(pool_folder)) == {
        "a.png": "",
        "labels.csv": "FILE_NOT_AN_IMAGE",
        "Makefile": "FILE_NOT_AN_IMAGE",
        "archive.tar.gz": "FILE_NOT_AN_IMAGE",
    }


def test_what_cannot_be_read_is_a_row_with_a_reason(pool_folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, "outside.png", "beside/a.png")
    fill(pool_folder, "large.png", content=b"x" * 1001)
    fill(pool_folder, "a.png")
    (pool_folder / "dangling.png").symlink_to("nowhere.png")
    (pool_folder / "outside.png").symlink_to("../outside.png")
    (pool_folder / "inside.png").symlink_to("a.png")
    (pool_folder / "circle.png").symlink_to("circle.png")
    (pool_folder / "linked").symlink_to("../beside")
    os.mkfifo(pool_folder / "pipe.png")
    found = reasons(opened(pool_folder, AllowedRoots.below([pool_folder]), ImageLimits(max_bytes=1000)))
    assert found.pop("circle.png") in {"FILE_NOT_ALLOWED", "FILE_UNREADABLE"}
    assert found == {
        "a.png": "",
        "dangling.png": "FILE_MISSING",
        "inside.png": "",
        "large.png": "IMAGE_TOO_LARGE",
        "outside.png": "FILE_NOT_ALLOWED",
        "pipe.png": "FILE_UNREADABLE",
    }


def test_a_file_that_goes_after_the_listing_is_a_missing_row(pool_folder: Path) -> None:
    fill(pool_folder, "a.png", "b.png")
    pool = opened(pool_folder)
    (pool_folder / "a.png").unlink()
    assert reasons(pool) == {"a.png": "FILE_MISSING", "b.png": ""}


def test_a_name_that_is_not_utf8_is_a_row_with_a_reason(pool_folder: Path) -> None:
    fill(pool_folder, "a.png")
    try:
        (pool_folder / os.fsdecode(b"\xff.png")).write_bytes(IMAGE)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert reasons(opened(pool_folder)) == {"\\xff.png": "FILE_NAME_NOT_UTF8", "a.png": ""}


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(
    pool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pool_folder, "a.png", "locked/b.png")
    listed = os.scandir

    # Rights do not bind whoever may do all.
    def scandir(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UnreadablePoolError, match=r"locked.*Permission denied") as caught:
        opened(pool_folder)
    assert caught.value.reason == "POOL_UNREADABLE"


def test_slices_stay_put_when_a_file_comes_or_goes(pool_folder: Path) -> None:
    names = [f"{i:05d}.png" for i in range(2500)]
    for name in names:
        (pool_folder / name).touch()
    before = {shard.identity: ids_of(shard) for shard in opened(pool_folder).shards}
    assert 3 <= len(before) <= 15
    assert sorted(id_ for ids in before.values() for id_ in ids) == names
    for change, name in ((Path.touch, "01200x.png"), (Path.unlink, "01200x.png"), (Path.unlink, names[3])):
        change(pool_folder / name)
        after = {shard.identity: ids_of(shard) for shard in opened(pool_folder).shards}
        assert len(set(after) - set(before)) <= 2
        assert sum(len(ids) for identity, ids in after.items() if identity not in before) < 2000
        before = after


def test_a_new_file_changes_its_own_slice_alone(pool_folder: Path) -> None:
    for i in range(3000):
        (pool_folder / f"{i:05d}.png").touch()
    before = [shard.identity for shard in opened(pool_folder).shards]
    (pool_folder / "01500a.png").touch()
    pool = opened(pool_folder)
    changed = [shard for shard in pool.shards if shard.identity not in before]
    assert len(changed) == 1
    assert "01500a.png" in ids_of(changed[0])


def test_a_slice_changes_when_one_of_its_files_does(pool_folder: Path) -> None:
    fill(pool_folder, "a.png", "b.png")
    (first,) = opened(pool_folder).shards
    assert opened(pool_folder).shards[0].identity == first.identity
    os.utime(pool_folder / "a.png", ns=(1, 1))
    (touched,) = opened(pool_folder).shards
    fill(pool_folder, "b.png", content=IMAGE + b"\0")
    (longer,) = opened(pool_folder).shards
    assert len({first.identity, touched.identity, longer.identity}) == 3


def test_a_folder_elsewhere_with_the_same_files_is_another_pool(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fill(tmp_path / name, "a.png")
        os.utime(tmp_path / name / "a.png", ns=(1, 1))
    (one,), (two,) = opened(tmp_path / "one").shards, opened(tmp_path / "two").shards
    assert one.identity != two.identity


def test_a_long_run_without_a_boundary_is_cut(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topb_scorer.pools.slices._MAX_ROWS", 7)
    for i in range(40):
        (pool_folder / f"{i}.png").touch()
    pool = opened(pool_folder)
    assert max(shard.rows for shard in pool.shards) == 7
    assert pool.rows == 40


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "b/c.Png", "x.webp", "x.gif", "x.bmp", "x.tif", "x.tiff"]
)
def test_the_usual_suffixes_are_those_of_images(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["a", "a.txt", "png", "a.parquet", "a.png.txt", "a.json"])
def test_other_suffixes_are_not(name: str) -> None:
    assert not is_image_name(name)
