"""Determine how many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(*, mount: Path = _MOUNT, membership: Path = _MEMBERSHIP) -> int:
    """Return how many cores this process may use, at least 1.

    The CPU limits of cgroups, such as a container's, are taken into account. They are rounded down, because a
    throttled thread delays the whole batch.

    Args:
        mount: the directory where cgroups are mounted.
        membership: the file that lists the cgroups of this process, see cgroups(7).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_limits(mount, membership)])))


def _limits(mount: Path, membership: Path) -> Iterator[float]:
    """Yield the limits, in cores, of this process's cgroups (version 1 and 2) and of all their parents."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see the host's paths. Then only the mount itself exists, which is its cgroup.
        group = PurePosixPath(path.lstrip("/"))
        for directory in (group, *group.parents):
            if controllers:
                files = [mount / "cpu" / directory / f"cpu.cfs_{of}_us" for of in ("quota", "period")]
            else:
                files = [mount / directory / "cpu.max"]
            words = " ".join(map(_read, files)).split()
            # Without a limit, the quota is "max" or -1.
            if len(words) == 2 and words[0].isdecimal():
                yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    """Return the text of a file, or "" if it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""
