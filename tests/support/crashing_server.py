"""A real server in its own process that kills itself at a chosen step on the way to durability.

The server is `topb serve`, unchanged. `topb_scorer.durable.on_step` tells the harness of each step and of
each scored shard. New servers start fast because a fork server has imported everything they need.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.power_loss import record_syncs
from support.waiting import once

_READY_SECONDS = 60
_STOP_SECONDS = 60
_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(["__main__", "support.crashing_server", "topb_scorer.service.server"])


@dataclass(frozen=True)
class CrashingServer:
    """A running or killed server."""

    process: Any
    folder: Path
    """The directory of its output and of the record of its steps."""

    def address(self) -> str | None:
        """Wait until the server is ready and return its address, or None if it died before."""
        stdout = self.folder / "stdout"
        once(lambda: bool(_lines(stdout)) or not self.process.is_alive(), seconds=_READY_SECONDS)
        return _lines(stdout)[0].split()[-1] if _lines(stdout) else None

    def ready_address(self) -> str:
        """Wait until the server is ready and return its address."""
        address = self.address()
        assert address is not None, self.log
        return address

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is dead."""
        self.process.kill()
        self.process.join()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    @property
    def scored(self) -> list[str]:
        """The identities of the shards that it scored, in order."""
        return _lines(self.folder / "scored")

    @property
    def batches(self) -> int:
        """The number of batches that it ran. Only slowed batches are counted."""
        return len(_lines(self.folder / "batches"))

    @property
    def steps(self) -> list[str]:
        """The steps that it reached, in order."""
        return _lines(self.folder / "steps")

    @property
    def last_step(self) -> str:
        """Name of the step at which it killed itself, or empty."""
        return "".join(_lines(self.folder / "killed"))

    def live_objects(self) -> Counter[str]:
        """Return the number of live objects of each class of topb in the server after a garbage
        collection."""
        counted = self.folder / "objects"
        counted.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        once(counted.is_file)
        return Counter(json.loads(counted.read_text()))

    @property
    def log(self) -> str:
        """The text that it logged to standard error."""
        return (self.folder / "stderr").read_text()


@contextmanager
def crashing_server(
    data: Path,
    state: Path,
    *,
    options: Iterable[str] = (),
    die_at: int = 0,
    batch_seconds: float = 0.0,
    syncs: Path | None = None,
) -> Iterator[CrashingServer]:
    """Start a server of the bundles in `data`/models for pools in `data`, and stop it on exit.

    Args:
        data: directory of the bundles and pools.
        state: the server's state directory.
        options: further options of `topb serve`.
        die_at: the step at which the server kills itself, counted from 1; 0 for none.
        batch_seconds: seconds added to each batch.
        syncs: the directory in which to record what becomes durable on the disk, which is the directory that
            holds the state directory. None to record nothing.
    """
    folder = Path(tempfile.mkdtemp(prefix="topb-server-"))
    arguments = [f"--models={data / 'models'}", f"--allow-root={data}", f"--state={state}"]
    arguments += ["--listen=127.0.0.1:0", *options]
    disk = (state.parent, syncs) if syncs else None
    process = _START.Process(target=_serve, args=(folder, arguments, die_at, batch_seconds, disk))
    process.start()
    try:
        yield CrashingServer(process, folder)
    finally:
        process.terminate()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        shutil.rmtree(folder)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _serve(
    folder: Path,
    arguments: list[str],
    die_at: int,
    batch_seconds: float,
    disk: tuple[Path, Path] | None,
) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    from topb_scorer import durable
    from topb_scorer.commands import serve

    threading.Thread(target=_die_with_the_tests, daemon=True).start()
    signal.signal(signal.SIGUSR1, lambda *_: _count_objects(folder / "objects"))
    durable.on_step = _Steps(folder, die_at)
    if disk is not None:
        record_syncs(*disk)
    if batch_seconds:
        _slow_down(folder, batch_seconds)
    sys.exit(serve.run.main(arguments, standalone_mode=False))


def _count_objects(path: Path) -> None:
    gc.collect()
    names = (f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    counts = Counter(name for name in names if name.startswith("topb"))
    path.with_suffix(".tmp").write_text(json.dumps(counts))
    path.with_suffix(".tmp").rename(path)


def _die_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)


class _Steps:
    """Counts the steps on the way to durability and kills the process at the chosen one.

    Renewing a lease is not a step: it depends on the clock, so the count would differ between runs.
    """

    def __init__(self, folder: Path, die_at: int) -> None:
        self._folder = folder
        self._die_at = die_at
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, name: str, path: Path | None) -> None:
        with self._lock:
            if name == "shard scored" and path is not None:
                _append(self._folder / "scored", path.stem.rpartition("-")[0])
            elif name == "file written" and path is not None:
                self._count_step("file half written", lambda: os.truncate(path, path.stat().st_size // 2))
            elif name == "directory removal begins" and path is not None:
                files = sorted(path.rglob("*.parquet"))
                self._count_step("directory half removed", files[0].unlink if files else lambda: None)
            self._count_step(name, lambda: None)

    def _count_step(self, name: str, tear: Callable[[], object]) -> None:
        _append(self._folder / "steps", name)
        self._count += 1
        if self._count == self._die_at:
            tear()
            (self._folder / "killed").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def _slow_down(folder: Path, seconds: float) -> None:
    from topb_scorer.scoring.session import GraphSession

    run = GraphSession.run

    def slow_run(session: GraphSession, batch: Any) -> None:
        if "images" in session.input_shapes:
            _append(folder / "batches", "batch")
            time.sleep(seconds)
        run(session, batch)

    GraphSession.run = slow_run  # type: ignore[method-assign]
