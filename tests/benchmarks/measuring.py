"""Shared code of the benchmarks: arguments, child processes, times, peak memory and JSON output."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "pyarrow", "pillow", "simplejpeg", "grpcio")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the description of a program with its line breaks."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)


def machine() -> dict[str, object]:
    """Return the processor, cores, memory, date, and the versions of the libraries that do the work."""
    cpu = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory[0] / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "libraries": versions(_LIBRARIES),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path | None, results: object) -> None:
    """Write the results to a JSON file, or print them if `path` is None."""
    text = json.dumps(results, indent=1)
    if path is None:
        print(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")


def seconds(work: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of paired measurements."""
    return statistics.median(value / other for value, other in zip(values, others, strict=False))


def in_a_process(*arguments: str, limit: float | None = None) -> Any:
    """Run the calling program in a new process, and return the JSON on its last line of output.

    Raises:
        subprocess.TimeoutExpired: the process did not end within `limit` seconds.
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, sys.argv[0], *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """Return the peak of this process's resident memory in bytes."""
    (line,) = [line for line in _lines("/proc/self/status") if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
