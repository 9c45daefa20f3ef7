from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.pools import identities, opened
from topb_scorer.pools.folder import is_image_name

pytestmark = pytest.mark.scorer


def test_a_new_file_changes_its_own_slice_alone(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / f"{i:05d}.png").touch()
    before = identities(tmp_path)
    (tmp_path / "01500a.png").touch()
    pool = opened(tmp_path)
    assert pool.rows == 3001
    (changed,) = [shard for shard in pool.shards if shard.identity not in before]
    assert "01500a.png" in {item.id for item in changed.items()}


def test_a_folder_elsewhere_with_the_same_files_is_another_pool(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
        os.utime(tmp_path / name / "a.png", ns=(1, 1))
    assert identities(tmp_path / "one") != identities(tmp_path / "two")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.jpg", "a.JPEG", "b/c.Png", "x.webp", "x.gif", "x.bmp", "x.tif", "x.tiff"), True),
        (("a", "a.txt", "png", "a.parquet", "a.png.txt", "a.json"), False),
    ],
)
def test_image_files_are_recognised_by_their_suffix(names: tuple[str, ...], expected: bool) -> None:
    assert {is_image_name(name) for name in names} == {expected}
