"""Publish files and directories atomically: after a crash or power loss they are complete or absent.

Each publication writes to a temporary name beside the target, calls fsync, renames, and calls fsync on the
directory. Readers see the old contents or the new, never a mixture.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

_UNPUBLISHED = ".unpublished-"

P = ParamSpec("P")
T = TypeVar("T")

on_step: Callable[[str, Path | None], None] | None = None
"""A hook for tests: it is called with the name of each step of a durable write, and the file concerned.

A test sets it to stop the process between two steps. It is None in production.
"""


def step(name: str, path: Path | None = None) -> None:
    """Call `on_step`, if it is set."""
    if on_step is not None:
        on_step(name, path)


def stepped(change: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that commits a transaction, so that `step` is called before and after it."""

    @wraps(change)
    def announced(*args: P.args, **kwargs: P.kwargs) -> T:
        step(f"before {change.__name__}")
        changed = change(*args, **kwargs)
        step(f"after {change.__name__}")
        return changed

    return announced


def publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Publish the file that `write` creates.

    Args:
        path: the path of the published file; an existing file is replaced.
        write: called with a temporary path in the same directory.

    Raises:
        OSError: the file cannot be written. The old file, if any, is unchanged.
    """
    descriptor, name = tempfile.mkstemp(prefix=_UNPUBLISHED, suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        step("file created", temporary)
        write(temporary)
        step("file written", temporary)
        temporary.chmod(0o644)
        _fsync(temporary)
        step("file synced", temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    step("file renamed", path)
    _fsync(path.parent)
    step("directory synced", path.parent)


@contextmanager
def unpublished_directory(parent: Path) -> Iterator[Path]:
    """Create a temporary directory in `parent`. The caller fills it and calls `publish_directory`.

    The directory is removed on exit unless it was published.
    """
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=_UNPUBLISHED, dir=parent))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish_directory(directory: Path, path: Path) -> None:
    """Publish `directory`, which contains only files, as `path`.

    Raises:
        OSError: `path` exists and is not empty.
    """
    for file in directory.iterdir():
        _fsync(file)
    _fsync(directory)
    directory.replace(path)
    _fsync(path.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory and its contents, ignoring errors. The removal is not atomic."""
    step("directory removal begins", path)
    shutil.rmtree(path, ignore_errors=True)
    step("directory removed", path)


def is_unpublished(path: Path) -> bool:
    """Return whether an interrupted publication left `path` behind."""
    return path.name.startswith(_UNPUBLISHED)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
