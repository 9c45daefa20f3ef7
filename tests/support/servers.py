"""A real server in its own process, on a free loopback port."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STOP_SECONDS = 30
# These ports are below those of outgoing connections, so none is taken while its server restarts.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready."""

    address: str
    process: subprocess.Popen[str]


@contextmanager
def running_server(models: Path, *roots: Path, options: tuple[str, ...] = ()) -> Iterator[RunningServer]:
    """Start `topb serve` on the bundles in `models`, wait until it is ready, and stop it on exit."""
    command = [sys.executable, "-m", "topb", "serve", "--models", str(models), "--listen", "127.0.0.1:0"]
    for root in roots:
        command += ["--allow-root", str(root)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("topb is ready on "), f"the server printed {ready!r} and exited"
        yield RunningServer(ready.split()[-1], process)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def free_port() -> int:
    """Return a free port for a server that must restart on the same port."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
