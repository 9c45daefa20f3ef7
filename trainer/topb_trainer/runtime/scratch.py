"""Temporary directories that do not outlive their process for long, even if it is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """Yield a new temporary directory, which is removed at the end.

    Directories with the same prefix that killed processes left are removed first. A process holds a lock on
    its directory as long as it lives, so the directories of other processes that run are kept.

    Args:
        prefix: start of the name, such as `topb-train-`.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # A directory that another process locks, or that belongs to another user, is not ours to remove.
        with suppress(OSError):
            lock = _lock(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    directory, lock = _new(prefix)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _new(prefix: str) -> tuple[Path, int]:
    """Return a new directory, and the open file that holds its lock."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=prefix))
        # Another process may remove the directory before it is locked.
        with suppress(OSError):
            lock = _lock(directory)
            if directory.exists():
                return directory, lock
            os.close(lock)


def _lock(directory: Path) -> int:
    """Return an open file that holds a lock on a directory until it is closed.

    Raises:
        OSError: another process holds the lock, or the directory cannot be opened.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
