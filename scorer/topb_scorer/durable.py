"""Publish files and directories atomically: after a crash or power loss they are complete or absent.

Each publication writes to a temporary name beside the target, calls fsync, renames, and calls fsync on the
directory. Readers see the old contents or the new, never a mixture. Directories that are missing on the way
to the target are created durably first, so that nothing is published below a name that a power loss removes.

Files and directories get the permissions that the umask of the process leaves.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, whose names survive a power loss from then on.

    If a directory made by this function exists, the names of all its parents are durable: a parent is made
    first, and its name is synced before anything is created in it. The name of an existing directory is
    synced again, because the process that created it may not have done so yet, or may have died before.

    Raises:
        OSError: a directory cannot be created, or `path` is not a directory.
    """
    if path.is_dir():
        # A directory that somebody provided may lie in one that this process cannot read.
        with suppress(PermissionError):
            _fsync(path.parent)
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    step("directory created", path)
    _fsync(path.parent)


def sync_names(directory: Path) -> None:
    """Make the names of all files below `directory` durable, as far as `publish_file` made them.

    A process that died between the rename and the sync of a publication leaves a file that is there, but
    that a power loss may still remove.
    """
    for folder, _, _ in os.walk(directory):
        _fsync(Path(folder))


def publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Publish the file that `write` fills. Its directory is created if it is missing.

    Args:
        path: the path of the published file; an existing file is replaced.
        write: called with the temporary path of an empty file in the same directory.

    Raises:
        OSError: the file cannot be written. The old file, if any, is unchanged.
    """
    with unpublished_file(path.parent, path.suffix) as temporary:
        write(temporary)
        publish(temporary, path)


@contextmanager
def unpublished_file(directory: Path, suffix: str = "", *, synced: bool = True) -> Iterator[Path]:
    """Create an empty temporary file in `directory`. The caller fills it and calls `publish`.

    The file is removed on exit unless it was published.

    Args:
        directory: the directory, which is created if it is missing.
        suffix: the suffix of the temporary name.
        synced: whether the name of the directory must survive a power loss.
    """
    if synced:
        make_directory(directory)
    else:
        directory.mkdir(parents=True, exist_ok=True)
    temporary = _unpublished_name(directory, suffix)
    try:
        temporary.touch(exist_ok=False)
        step("file created", temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, synced: bool = True) -> None:
    """Publish a file of `unpublished_file` as `path`, in the same directory.

    Args:
        temporary: the complete file.
        path: the path of the published file; an existing file is replaced.
        synced: whether the file must survive a power loss.
    """
    step("file written", temporary)
    if synced:
        _fsync(temporary)
    step("file synced", temporary)
    temporary.replace(path)
    step("file renamed", path)
    if synced:
        _fsync(path.parent)
    step("directory synced", path.parent)


@contextmanager
def unpublished_directory(parent: Path) -> Iterator[Path]:
    """Create a temporary directory in `parent`. The caller fills it and calls `publish_directory`.

    The directory is removed on exit unless it was published.
    """
    make_directory(parent)
    directory = _unpublished_name(parent)
    directory.mkdir()
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


def _unpublished_name(parent: Path, suffix: str = "") -> Path:
    return parent / f"{_UNPUBLISHED}{secrets.token_hex(8)}{suffix}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
