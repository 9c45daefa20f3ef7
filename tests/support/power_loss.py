"""A model of a disk that forgets, in a power loss, all that was not synced.

`record_syncs` makes a process note what each fsync makes durable: the content of a file, or the names in a
directory. `what_survives` builds the tree that is left. It holds nothing that was not synced: neither a name
in a directory that was not synced after the name appeared, nor content written after the last sync of a file.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path


def record_syncs(disk: Path, record: Path) -> None:
    """Record in the directory `record` all that becomes durable below `disk` while this process lives.

    If `record` is new, what lies on the disk now counts as durable. Otherwise the record of an earlier
    process is continued.
    """
    syncs = _Syncs(record, os.fsync)
    os.fsync = syncs
    if record.exists():
        return
    record.mkdir()
    for folder, _, names in os.walk(disk):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
            syncs.note(os.open(path, os.O_RDONLY))


class _Syncs:
    """Replaces os.fsync. A durable inode is named by its number, which stays its own while it is open."""

    def __init__(self, record: Path, fsync: Callable[[int], None]) -> None:
        self._record = record
        self._fsync = fsync
        self._lock = threading.Lock()

    def __call__(self, descriptor: int) -> None:
        self._fsync(descriptor)
        with self._lock:
            self.note(os.dup(descriptor))

    def note(self, descriptor: int) -> None:
        """Note the durable state of an open file or directory, and keep it open."""
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        if stat.S_ISDIR(status.st_mode):
            names = {entry.name: entry.inode() for entry in os.scandir(path)}
            content = json.dumps(names).encode()
        else:
            content = path.read_bytes()
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        unfinished = self._record / "unfinished"
        unfinished.write_bytes(content)
        unfinished.replace(self._record / f"{status.st_ino}.{kind}")


def what_survives(disk: Path, record: Path, survivors: Path) -> None:
    """Build, as `survivors`, the tree that a power loss leaves of `disk`."""
    unsynced_directories = {path.stat().st_ino for path in disk.rglob("*") if path.is_dir()}

    def build(inode: int, path: Path) -> None:
        names, content = record / f"{inode}.directory", record / f"{inode}.file"
        if names.exists():
            path.mkdir()
            for name, child in json.loads(names.read_text()).items():
                build(child, path / name)
        elif content.exists():
            shutil.copyfile(content, path)
        elif inode in unsynced_directories:
            path.mkdir()
        else:
            path.touch()

    build(disk.stat().st_ino, survivors)
