"""A real server in a process of its own that kills itself at a chosen step of what it publishes.

The server is `topb serve` as it is; around it stand counters on each step by which something becomes
durable, and a journal of which shards it scored. A fork server that has imported everything makes new ones
start fast.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READY_SECONDS = 60
_STOP_SECONDS = 60
_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(["__main__", "support.crashing_server", "topb_scorer.service.server"])


@dataclass(frozen=True)
class Sabotage:
    """What befalls a server."""

    die_at: int = 0
    """The publication step at which it kills itself, counted from 1; 0: at none."""
    batch_seconds: float = 0.0
    """How much longer each run of the model takes."""


@dataclass(frozen=True)
class CrashingServer:
    """A server that has been started."""

    process: Any
    folder: Path
    """Where it notes what it does."""

    def address(self) -> str | None:
        """Where it listens, once it is ready; None if it died before."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            said = (self.folder / "stdout").read_text() if (self.folder / "stdout").is_file() else ""
            if said.endswith("\n"):
                return said.split()[-1]
            if not self.process.is_alive():
                return None
            time.sleep(0.01)
        raise AssertionError(f"the server was not ready after {_READY_SECONDS} s: {self.log}")

    def kill(self) -> None:
        """SIGKILL; returns once it is dead."""
        self.process.kill()
        self.process.join()

    def signal(self, number: signal.Signals) -> None:
        """Sends the signal."""
        os.kill(self.process.pid, number)

    @property
    def scored(self) -> list[str]:
        """The shards whose last row went through the model, in order."""
        return _lines(self.folder / "scored")

    @property
    def batches(self) -> int:
        """How many batches it ran, where it was made slow."""
        return len(_lines(self.folder / "batches"))

    @property
    def last_step(self) -> str:
        """Name of the step at which it killed itself, or empty."""
        return "".join(_lines(self.folder / "killed"))

    @property
    def log(self) -> str:
        """What it logged."""
        return (self.folder / "stderr").read_text()


@contextmanager
def crashing_server(
    models: Path, root: Path, state: Path, *, options: Iterable[str] = (), sabotage: Sabotage = Sabotage()
) -> Iterator[CrashingServer]:
    """Starts a server on the bundles in `models` for pools in `root`, and ends it where it still runs."""
    folder = Path(tempfile.mkdtemp(prefix="topb-server-"))
    arguments = [f"--models={models}", f"--allow-root={root}", f"--state={state}", "--listen=127.0.0.1:0"]
    process = _START.Process(target=_serve, args=(folder, [*arguments, *options], sabotage))
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


def _serve(folder: Path, arguments: list[str], sabotage: Sabotage) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    from topb_scorer.commands import serve

    threading.Thread(target=_die_with_the_tests, daemon=True).start()
    _Steps(folder, sabotage.die_at).install()
    _journal_what_is_scored(folder)
    if sabotage.batch_seconds:
        _slow_down(folder, sabotage.batch_seconds)
    sys.exit(serve.run(arguments))


def _die_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)


class _Steps:
    """Counts the steps of publications and transactions, and dies at the one that was chosen."""

    def __init__(self, folder: Path, die_at: int) -> None:
        self._folder = folder
        self._die_at = die_at
        self._count = 0
        self._lock = threading.Lock()

    def take(self, name: str, *, torn: Callable[[], object] | None = None) -> None:
        """One step done; `torn` is what becomes of it where the server dies in its midst."""
        with self._lock:
            self._count += 1
            if self._count != self._die_at:
                return
            if torn is not None:
                torn()
            (self._folder / "killed").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Puts the counters in place."""
        from topb_scorer import durable
        from topb_scorer.scoring.score_log import ScoreLog

        self._around_publications(durable)
        self._around_transactions()
        remove = ScoreLog.remove

        def counted_remove(log: ScoreLog) -> None:
            files = sorted(log._directory.rglob("*.parquet"))
            self.take("log half removed", torn=files[0].unlink if files else None)
            remove(log)
            self.take("log removed")

        ScoreLog.remove = counted_remove  # type: ignore[method-assign]

    def _around_publications(self, durable: Any) -> None:
        publish, fsync, replace = durable.publish_file, durable._fsync, Path.replace

        def counted_publish(path: Path, write: Callable[[Path], object]) -> None:
            def counted_write(beside: Path) -> None:
                self.take("file made beside")
                write(beside)
                self.take("half written", torn=lambda: os.truncate(beside, beside.stat().st_size // 2))
                self.take("written")

            publish(path, counted_write)

        def counted_fsync(path: Path) -> None:
            fsync(path)
            self.take("directory fsynced" if path.is_dir() else "file fsynced")

        def counted_replace(path: Path, target: Path) -> Path:
            replaced = replace(path, target)
            self.take("renamed")
            return replaced

        durable._fsync = counted_fsync
        Path.replace = counted_replace  # type: ignore[method-assign, assignment]
        for name in ("score_log", "result_store"):
            module = __import__(f"topb_scorer.{name}", fromlist=["publish_file"])
            module.publish_file = counted_publish

    def _around_transactions(self) -> None:
        from topb_scorer.jobs.catalog import SelectionCatalog

        # Leases are kept by the clock, not by the work: those would make the count differ each time.
        for name in ("create", "claim", "release", "complete_stream", "succeed", "fail", "cancelled"):
            setattr(SelectionCatalog, name, self._counted_transaction(name, getattr(SelectionCatalog, name)))

    def _counted_transaction(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.take(f"before {name}")
            changed = change(*arguments, **options)
            self.take(f"after {name}")
            return changed

        return counted


def _journal_what_is_scored(folder: Path) -> None:
    from topb_scorer.engines import local

    score_shards = local.score_shards

    def journalled(*arguments: Any, **options: Any) -> Iterator[Any]:
        journal = os.open(folder / "scored", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        scored = score_shards(*arguments, **options)
        try:
            for part in scored:
                if part.ends_shard:
                    os.write(journal, f"{part.shard.identity}\n".encode())
                yield part
        finally:
            scored.close()
            os.close(journal)

    local.score_shards = journalled  # type: ignore[assignment]


def _slow_down(folder: Path, seconds: float) -> None:
    from topb_scorer.scoring.session import Session

    run = Session.run
    journal = os.open(folder / "batches", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def slow_run(session: Session, batch: Any) -> None:
        os.write(journal, b"batch\n")
        time.sleep(seconds)
        run(session, batch)

    Session.run = slow_run  # type: ignore[method-assign]
