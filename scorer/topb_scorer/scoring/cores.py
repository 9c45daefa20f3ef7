"""How many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(*, mount: Path = _MOUNT, membership: Path = _MEMBERSHIP) -> int:
    """Those that it may run on, or fewer where a cgroup, such as a container's, limits its CPU time.

    A limit of 2.5 cores counts as 2: a thread that is throttled delays all of its batch.

    Args:
        mount: where cgroups are mounted.
        membership: what names the cgroups of this process, as cgroups(7) has it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_limits(mount, membership)])))


def _limits(mount: Path, membership: Path) -> Iterator[float]:
    """In cores, of the cgroups that this process is in and of all above them, of version 1 and 2."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Of a container that sees the host's paths, only the mount itself is there, and is its own cgroup.
        group = PurePosixPath(path.lstrip("/"))
        for directory in (group, *group.parents):
            if controllers:
                files = [mount / "cpu" / directory / f"cpu.cfs_{of}_us" for of in ("quota", "period")]
            else:
                files = [mount / directory / "cpu.max"]
            words = " ".join(map(_read, files)).split()
            # Without a limit the quota is "max" or -1.
            if len(words) == 2 and words[0].isdecimal():
                yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    """Empty where there is no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""
