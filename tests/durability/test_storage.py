"""Storage that fails: full disks, read-only state directories, altered files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from support.crashing_server import crashing_server
from support.postgresql import PostgresCluster
from support.raw_selections import PoolCaller, StreamCaller
from support.rpc import code_and_reason
from support.undisturbed import OPTIONS, SHARDS, Data, committed

pytestmark = pytest.mark.scorer

PATHS = pytest.mark.parametrize("path", ["read", "streamed"])


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory, and unmount it on exit."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def failure(caller: PoolCaller | StreamCaller, address: str) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason with which the call fails, within seconds."""
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        caller.call(address)
    assert time.monotonic() - started < 20
    return code_and_reason(caught.value)


@PATHS
@pytest.mark.parametrize("free_kilobytes", [0, 8, 24, 36])
def test_on_a_full_disk_a_selection_waits_for_room(
    path: str, free_kilobytes: int, data: Data, tmp_path: Path
) -> None:
    """The catalog is on the same disk, so writes to it may fail as well."""
    with mounted(tmp_path / "disk", "size=2m") as disk:
        caller = data.caller(path, "one")
        with crashing_server(data.folder, disk / "state", options=OPTIONS) as server:
            address = server.ready_address()
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
            (disk / "ballast").write_bytes(bytes(max(0, free - free_kilobytes * 1024)))
            assert failure(caller, address) in {
                (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
                (grpc.StatusCode.RESOURCE_EXHAUSTED, "FEATURES_OVER_DISK"),
                (grpc.StatusCode.UNAVAILABLE, "CATALOG_UNAVAILABLE"),
            }
            held, before = set(committed(disk / "state")), len(server.scored)
            (disk / "ballast").unlink()
            data.check(caller.call(address))
            assert held.isdisjoint(server.scored[before:])
            assert len(set(server.scored)) == SHARDS


@PATHS
def test_a_selection_continues_after_its_state_was_read_only(
    path: str, data: Data, tmp_path: Path, cluster: PostgresCluster
) -> None:
    """The catalog is elsewhere: a disk with an open SQLite file cannot be made read-only."""
    catalog = cluster.create_database()
    with mounted(tmp_path / "disk", "size=8m") as disk:
        caller = data.caller(path, "one")
        options = (*OPTIONS, f"--catalog-url={catalog}")
        with crashing_server(data.folder, disk / "state", options=options) as server:
            address = server.ready_address()
            remount(disk, "ro")
            assert failure(caller, address) == (grpc.StatusCode.INTERNAL, "STORAGE_FAILED")
            remount(disk, "rw")
            data.check(caller.call(address))


def test_a_server_does_not_start_on_a_read_only_state(data: Data, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        for state in (disk, disk / "state"):
            started = time.monotonic()
            with crashing_server(data.folder, state, options=OPTIONS) as server:
                assert server.address() is None
                server.process.join(10)
                assert server.process.exitcode == 1
                assert time.monotonic() - started < 15


def test_altered_and_torn_shards_are_scored_again(data: Data, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with crashing_server(data.folder, state, options=OPTIONS) as server:
        data.check(data.caller("read", "one").call(server.ready_address()))
    files = sorted(state.glob("scores/*/*/*.parquet"))
    assert len(files) == SHARDS
    altered = bytearray(files[0].read_bytes())
    altered[len(altered) // 3] ^= 1
    files[0].write_bytes(altered)
    files[1].write_bytes(files[1].read_bytes()[:-9])
    files[2].write_bytes(b"")
    with crashing_server(data.folder, state, options=OPTIONS) as server:
        data.check(data.caller("read", "another").call(server.ready_address()))
        assert sorted(server.scored) == sorted(file.name.rpartition("-")[0] for file in files[:3])


def test_a_chunk_whose_scores_are_lost_is_requested_again(data: Data, tmp_path: Path) -> None:
    state = tmp_path / "state"
    caller = data.caller("streamed", "one")
    assert isinstance(caller, StreamCaller)
    with crashing_server(data.folder, state, options=OPTIONS) as server:
        short = StreamCaller(caller.start, caller.chunks[:3], end=False)
        assert failure(short, server.ready_address())[1] == "STREAM_CUT_SHORT"
        (lost,) = state.glob(f"streams/*/*/{1:020d}-*.parquet")
        lost.unlink()
        data.check(caller.call(server.ready_address()))
        assert caller.sent_first == [1]
