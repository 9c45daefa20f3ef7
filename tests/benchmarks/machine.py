"""The machine on which a benchmark ran."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "pyarrow", "pillow", "simplejpeg", "grpcio")


def machine() -> dict[str, object]:
    """Return the processor, cores, memory, date, and the versions of the libraries that did the work."""
    cpu = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory[0] / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
