from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from topb_scorer.durable import (
    is_unpublished,
    make_directory,
    publish_directory,
    publish_file,
    sync_names,
    unpublished_directory,
)

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


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is created, synced and renamed below `tmp_path`, in order. Temporary names are shown as *."""
    calls: list[str] = []
    fsync, replace, mkdir = os.fsync, Path.replace, Path.mkdir

    def name(path: Path) -> str:
        parts = path.relative_to(tmp_path).parts
        return "/".join("*" if is_unpublished(Path(part)) else part for part in parts) or "."

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync {name(path) if path.is_relative_to(tmp_path) else 'outside'}")
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        calls.append(f"rename {name(path)} to {name(target)}")
        return replace(path, target)

    def recorded_mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        calls.append(f"create {name(path)}")

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(Path, "mkdir", recorded_mkdir)
    return calls


def test_each_new_directory_is_synced_in_its_parent_before_anything_is_created_in_it(
    tmp_path: Path, done: list[str]
) -> None:
    publish_file(tmp_path / "a" / "b" / "file", lambda path: path.touch())
    created = ["sync outside", "create a", "sync .", "create a/b", "sync a"]
    assert done == [*created, "sync a/b/*", "rename a/b/* to a/b/file", "sync a/b"]
    done.clear()
    # Another process may have created the directory and may not have synced its name yet.
    publish_file(tmp_path / "a" / "b" / "file", lambda path: path.touch())
    assert done == ["sync a", "sync a/b/*", "rename a/b/* to a/b/file", "sync a/b"]


def test_the_files_of_a_directory_are_synced_before_it_is_renamed(tmp_path: Path, done: list[str]) -> None:
    with unpublished_directory(tmp_path / "bundles") as directory:
        (directory / "one").touch()
        publish_directory(directory, tmp_path / "bundles" / "published")
    created = ["sync outside", "create bundles", "sync .", "create bundles/*"]
    synced = ["sync bundles/*/one", "sync bundles/*"]
    assert done == [*created, *synced, "rename bundles/* to bundles/published", "sync bundles"]


def test_names_that_a_killed_process_left_unsynced_can_be_synced(tmp_path: Path, done: list[str]) -> None:
    (tmp_path / "log" / "00").mkdir(parents=True)
    done.clear()
    sync_names(tmp_path / "log")
    assert done == ["sync log", "sync log/00"]


def test_a_directory_that_was_provided_may_lie_in_an_unreadable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, which can read everything."""
    open_ = os.open

    def refused(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(path)
        return open_(path, *arguments, **options)

    (tmp_path / "given").mkdir()
    monkeypatch.setattr(os, "open", refused)
    publish_file(tmp_path / "given" / "file", lambda path: path.touch())
    with pytest.raises(PermissionError):
        make_directory(tmp_path / "new")


@pytest.mark.parametrize(("umask", "file", "directory"), [(0o027, 0o640, 0o750), (0o002, 0o664, 0o775)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, file: int, directory: int) -> None:
    before = os.umask(umask)
    try:
        publish_file(tmp_path / "made" / "file", lambda path: path.write_text("text"))
        publish(tmp_path / "bundle")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("made/file", "made", "bundle")}
    assert modes == {"made/file": file, "made": directory, "bundle": directory}


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
