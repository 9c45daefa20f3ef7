"""A private PostgreSQL on a free loopback port, for tests that need a real one."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.servers import free_port

_COMMAND_SECONDS = 60
# initdb and postgres refuse to run as root: root runs them as one of these users.
_USERS = ("postgres", "nobody")


@dataclass(frozen=True)
class PostgresCluster:
    """A cluster that can be stopped and started again."""

    binaries: Path
    folder: Path
    port: int
    user: str | None

    def create_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"topb_{secrets.token_hex(8)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "topb", name)
        return f"postgresql+psycopg://topb@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start the cluster and wait until it accepts connections."""
        # The data need not survive the machine: no fsync.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += f" -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop the cluster; "immediate" acts like a crash, so that the next start recovers."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def initialise(self) -> None:
        """Create the cluster's files."""
        self._run("initdb", "-D", self._data, "-U", "topb", "-A", "trust", "--no-locale", "-E", "UTF8", "-N")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        # No pipes: the server that pg_ctl starts would keep them open.
        with (self.folder / f"{program}.out").open("w+") as output:
            # `user=` would make Python fork, which is unsafe beside gRPC's threads.
            as_user = [] if self.user is None else [_runuser() or "runuser", "-u", self.user, "--"]
            ended = subprocess.run(
                [*as_user, str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
            output.seek(0)
            assert ended.returncode == 0, f"{program} failed: {output.read()}"


def missing() -> str:
    """Return why PostgreSQL cannot run here, or an empty string if it can."""
    if _binaries() is None:
        return "no initdb, pg_ctl and createdb of PostgreSQL are installed"
    if os.geteuid() == 0 and _user() is None:
        return f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)}"
    if os.geteuid() == 0 and _runuser() is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return ""


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Create and start a cluster; remove it on exit."""
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="topb-postgresql-"))
    user = _user() if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    cluster = PostgresCluster(binaries, folder, free_port(), user)
    try:
        cluster.initialise()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if on_path is not None:
        folders.insert(0, Path(on_path).parent)
    for folder in folders:
        if all((folder / program).is_file() for program in ("initdb", "pg_ctl", "postgres", "createdb")):
            return folder
    return None


def _runuser() -> str | None:
    # PATH may lack the directories of administrators' programs.
    return shutil.which("runuser", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _user() -> str | None:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _USERS if name in known), None)
