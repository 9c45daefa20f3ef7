from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from topb_scorer.durable import is_unpublished, publish_directory, publish_file, unpublished_directory

pytestmark = pytest.mark.scorer


def test_a_published_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert (beside.parent, beside.suffix, is_unpublished(beside)) == (tmp_path, ".txt", True)

    publish_file(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208 - names, hidden ones too
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("half")
        raise error("disk full")

    with pytest.raises(error):
        publish_file(tmp_path / "a.txt", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_contents_are_synced_before_the_rename_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        done.append("fsync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    publish_file(tmp_path / "a", lambda path: path.touch())
    assert done == ["fsync file", "rename", "fsync directory"]
    done.clear()
    with unpublished_directory(tmp_path) as directory:
        (directory / "one").touch()
        (directory / "two").touch()
        publish_directory(directory, tmp_path / "published")
    assert done == ["fsync file", "fsync file", "fsync directory", "rename", "fsync directory"]


def test_a_published_directory_appears_complete(tmp_path: Path) -> None:
    with unpublished_directory(tmp_path / "bundles") as directory:
        (directory / "a").write_text("a")
        assert is_unpublished(directory)
        publish_directory(directory, tmp_path / "bundles" / "one")
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["one"]
    assert (tmp_path / "bundles" / "one" / "a").read_text() == "a"
    assert stat.S_IMODE((tmp_path / "bundles" / "one").stat().st_mode) == 0o755


def publish(path: Path, *, error: BaseException | None = None) -> None:
    with unpublished_directory(path.parent) as directory:
        (directory / "new").touch()
        if error is not None:
            raise error
        publish_directory(directory, path)


def test_a_directory_that_was_not_published_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "one", error=KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "old").touch()
    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path / "one")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["one", "one/old"]
