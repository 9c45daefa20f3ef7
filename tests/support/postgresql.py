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
# Debian keeps the server's programs off PATH, and PATH may lack the directories of administrators' programs.
_FOLDERS = [
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
    os.environ.get("PATH", os.defpath),
    "/usr/sbin",
    "/sbin",
]


@dataclass(frozen=True)
class PostgresCluster:
    """A cluster that can be stopped and started again."""

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
        # Without fsync, because the data need not survive a crash of the machine.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += f" -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop the cluster; "immediate" acts like a crash, from which the next start recovers."""
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
            as_user = [] if self.user is None else [_path("runuser"), "-u", self.user, "--"]
            ended = subprocess.run(
                [*as_user, _path(program), *arguments],
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
    if not all(map(_path, ("initdb", "pg_ctl", "createdb"))):
        return "no initdb, pg_ctl and createdb of PostgreSQL are installed"
    if os.geteuid() == 0 and not (_user() and _path("runuser")):
        return f"PostgreSQL does not run as root, and there is no runuser or no user {' or '.join(_USERS)}"
    return ""


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Create and start a cluster, and remove it on exit."""
    folder = Path(tempfile.mkdtemp(prefix="topb-postgresql-"))
    user = _user() if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    cluster = PostgresCluster(folder, free_port(), user)
    try:
        cluster.initialise()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _path(program: str) -> str:
    return shutil.which(program, path=os.pathsep.join(_FOLDERS)) or ""


def _user() -> str | None:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _USERS if name in known), None)
