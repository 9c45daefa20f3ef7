from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from topb_scorer.durable import is_unpublished, publish_directory, publish_file, unpublished_directory

pytestmark = pytest.mark.scorer


def test_a_published_file_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    publish_file(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208 - names, hidden ones too
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_while_it_is_written_the_old_file_stands(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("half of the new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert beside.parent == tmp_path
        assert beside.suffix == ".txt"
        assert is_unpublished(beside)

    publish_file(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "half of the new"


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


def test_the_contents_are_durable_before_the_name_and_the_name_after(
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


def test_a_published_directory_is_there_whole(tmp_path: Path) -> None:
    with unpublished_directory(tmp_path / "bundles") as directory:
        (directory / "a").write_text("a")
        assert is_unpublished(directory)
        publish_directory(directory, tmp_path / "bundles" / "one")
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["one"]
    assert (tmp_path / "bundles" / "one" / "a").read_text() == "a"
    assert stat.S_IMODE((tmp_path / "bundles" / "one").stat().st_mode) == 0o755


def test_a_directory_that_was_not_published_is_removed(tmp_path: Path) -> None:
    def fill() -> None:
        with unpublished_directory(tmp_path) as directory:
            (directory / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_place_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "old").touch()

    def publish() -> None:
        with unpublished_directory(tmp_path) as directory:
            (directory / "new").touch()
            publish_directory(directory, tmp_path / "one")

    with pytest.raises(OSError, match="not empty"):
        publish()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_process_that_is_killed_leaves_the_old_state(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from topb_scorer.durable import publish_file\n"
        "def write(beside):\n"
        "    beside.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish_file(Path(sys.argv[1]), write)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.txt")], check=False)
    assert ended.returncode == -9
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [is_unpublished(path) for path in sorted(tmp_path.iterdir())] == [True, False]
