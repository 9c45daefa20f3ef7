"""Publishing files and directories so that they are whole or absent, also after a power loss.

Write beside, fsync, rename, fsync the directory: a reader sees the old state or the new one, never a part.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNPUBLISHED = ".unpublished-"


def publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a path beside `path`, makes what it wrote durable, and renames it into place."""
    descriptor, name = tempfile.mkstemp(prefix=_UNPUBLISHED, suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        write(beside)
        beside.chmod(0o644)
        _fsync(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextmanager
def unpublished_directory(parent: Path) -> Iterator[Path]:
    """A fresh directory in `parent` to fill and then `publish_directory`; removed if that did not happen."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=_UNPUBLISHED, dir=parent))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish_directory(directory: Path, path: Path) -> None:
    """Makes the files in `directory` durable and renames it to `path`, which must not exist or be empty.

    Raises:
        OSError: `path` exists and is not empty.
    """
    for file in directory.iterdir():
        _fsync(file)
    _fsync(directory)
    directory.replace(path)
    _fsync(path.parent)


def is_unpublished(path: Path) -> bool:
    """Whether this is what a publication that never ended left behind."""
    return path.name.startswith(_UNPUBLISHED)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
