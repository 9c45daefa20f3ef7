"""Several servers on one state, and a catalog that goes away: work continues, and none is done twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from support.crashing_server import CrashingServer, crashing_server
from support.postgresql import PostgresCluster
from support.raw_selections import KilledCaller, PoolCaller, RawResult, StreamCaller, pool_request
from support.undisturbed import OPTIONS, SHARDS, Data, committed
from support.waiting import once
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

pytestmark = pytest.mark.scorer

PATHS = pytest.mark.parametrize("path", ["read", "streamed"])
TwoServers = tuple[Path, tuple[CrashingServer, str], tuple[CrashingServer, str]]
"""A state, and two servers on it with their addresses."""
CATALOGS = pytest.mark.parametrize("catalog", ["sqlite", "postgresql"])


@pytest.fixture
def options(catalog: str, request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the options of servers that share a catalog."""
    # On a busy machine a live server must not lose its lease to the other one.
    options = (*OPTIONS, "--lease-seconds=1.5")
    if catalog == "sqlite":
        return options
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    return (*options, f"--catalog-url={cluster.create_database()}")


@contextmanager
def server_on(data: Data, state: Path, options: tuple[str, ...]) -> Iterator[tuple[CrashingServer, str]]:
    with crashing_server(data.folder, state, options=options, batch_seconds=0.15) as server:
        yield server, server.ready_address()


@pytest.fixture
def two_servers(options: tuple[str, ...], data: Data, tmp_path: Path) -> Iterator[TwoServers]:
    state = tmp_path / "state"
    with server_on(data, state, options) as first, server_on(data, state, options) as second:
        yield state, first, second


def selection(address: str, request_id: str) -> pb.Selection:
    with grpc.insecure_channel(address) as channel:
        stub = selection_pb2_grpc.SelectionServiceStub(channel)
        return stub.GetSelection(pb.GetSelectionRequest(selection=request_id), timeout=30).selection


def once_ended(address: str, request_id: str) -> pb.Selection:
    """Wait until the selection has ended, and return it."""
    ended = (pb.SELECTION_STATE_SUCCEEDED, pb.SELECTION_STATE_FAILED, pb.SELECTION_STATE_CANCELLED)
    once(lambda: selection(address, request_id).state in ended)
    return selection(address, request_id)


def in_background(caller: PoolCaller | StreamCaller, address: str) -> Future[RawResult]:
    threads = ThreadPoolExecutor(1)
    future = threads.submit(caller.call, address)
    threads.shutdown(wait=False)
    return future


def kill_under_way(
    server: CrashingServer, address: str, caller: PoolCaller | StreamCaller, state: Path
) -> Counter[str]:
    """Kill the server once it has committed two shards, and return what it committed."""
    calling = in_background(caller, address)
    once(lambda: len(committed(state)) >= 2)
    server.kill()
    assert isinstance(calling.exception(30), grpc.RpcError)
    return committed(state)


def check_each_shard_is_there_once(state: Path) -> None:
    assert list(committed(state).values()) == [1] * SHARDS


@CATALOGS
def test_a_selection_whose_server_is_killed_is_taken_up_by_another(
    two_servers: TwoServers, data: Data
) -> None:
    state, (first, address), (second, other_address) = two_servers
    kept = kill_under_way(first, address, data.caller("read", "one"), state)
    # Nobody calls the other server: it finds the selection by itself once the lease has expired.
    assert once_ended(other_address, "one").state == pb.SELECTION_STATE_SUCCEEDED
    assert set(kept).isdisjoint(second.scored)
    assert len(second.scored) == SHARDS - len(kept)
    data.check(data.caller("read", "one").call(other_address))
    check_each_shard_is_there_once(state)


@CATALOGS
@PATHS
def test_a_caller_continues_its_selection_at_another_server(
    path: str, two_servers: TwoServers, data: Data
) -> None:
    state, (first, address), (second, other_address) = two_servers
    caller = data.caller(path, "one")
    kept = kill_under_way(first, address, caller, state)
    data.check(caller.call(other_address))
    assert set(kept).isdisjoint(second.scored)


@CATALOGS
def test_a_server_that_hung_past_its_lease_commits_nothing_twice(two_servers: TwoServers, data: Data) -> None:
    state, (first, address), (second, other_address) = two_servers
    calling = in_background(data.caller("read", "one"), address)
    once(lambda: len(committed(state)) >= 2)
    first.signal(signal.SIGSTOP)
    try:
        before = committed(state)
        once(lambda: len(second.scored) >= 1)
    finally:
        first.signal(signal.SIGCONT)
    assert once_ended(other_address, "one").state == pb.SELECTION_STATE_SUCCEEDED
    data.check(calling.result(60))
    assert set(before).isdisjoint(second.scored)
    # It may score the shard that it was working on when it hung, but none that was committed meanwhile.
    assert len(first.scored) + len(second.scored) <= SHARDS + 1
    check_each_shard_is_there_once(state)


@CATALOGS
def test_one_request_at_two_servers_is_one_selection(two_servers: TwoServers, data: Data) -> None:
    state, (first, address), (second, other_address) = two_servers
    callings = [in_background(data.caller("read", "one"), each) for each in (address, other_address) * 3]
    for calling in callings:
        data.check(calling.result(60))
    assert sorted(first.scored + second.scored) == sorted(committed(state))


@CATALOGS
def test_any_server_cancels_a_selection_that_another_runs(two_servers: TwoServers, data: Data) -> None:
    state, (first, address), (_, other_address) = two_servers
    calling = in_background(data.caller("read", "one"), address)
    once(lambda: len(committed(state)) >= 1)
    with grpc.insecure_channel(other_address) as channel:
        stub = selection_pb2_grpc.SelectionServiceStub(channel)
        stub.CancelSelection(pb.CancelSelectionRequest(selection="one"), timeout=30)
    error = calling.exception(30)
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.CANCELLED
    assert once_ended(address, "one").state == pb.SELECTION_STATE_CANCELLED
    assert len(first.scored) < SHARDS


@PATHS
@pytest.mark.parametrize("away_seconds", [0.0, 1.5])
def test_a_database_that_restarts_under_way_costs_nothing_but_time(
    path: str, away_seconds: float, data: Data, tmp_path: Path, cluster: PostgresCluster
) -> None:
    """For a moment, and for longer than a lease."""
    url = cluster.create_database()
    with server_on(data, tmp_path / "state", (*OPTIONS, f"--catalog-url={url}")) as (server, address):
        caller = data.caller(path, "one")
        calling = in_background(caller, address)
        once(lambda: len(committed(tmp_path / "state")) >= 1)
        cluster.stop()
        time.sleep(away_seconds)
        cluster.start()
        error = calling.exception(60)
        if path == "streamed" and error is not None:
            # The server continues a pool by itself, but only the caller can continue a stream.
            assert isinstance(error, grpc.Call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE, (error, server.log)
            calling = in_background(caller, address)
        data.check(calling.result(60))
        assert len(set(server.scored)) == len(server.scored) == SHARDS


@PATHS
def test_a_caller_that_was_killed_continues_under_its_request_id(
    path: str, data: Data, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with server_on(data, state, OPTIONS) as (server, address):
        caller = data.caller(path, "one")
        gone = KilledCaller(caller, address)
        once(lambda: len(committed(state)) >= 2)
        gone.kill()
        # Without its caller the selection stops and waits.
        once(lambda: selection(address, "one").state == pb.SELECTION_STATE_PENDING)
        kept = committed(state)
        before = len(server.scored)
        time.sleep(0.5)
        assert len(server.scored) == before
        again = data.caller(path, "one")
        data.check(again.call(address))
        assert set(kept).isdisjoint(server.scored[before:])
        if isinstance(again, StreamCaller):
            assert again.sent_first == [len(kept)]


def test_a_detached_selection_continues_without_its_caller(data: Data, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with server_on(data, state, OPTIONS) as (server, address):
        caller = PoolCaller(pool_request(data.pool, "one", spec=data.spec, detached=True))
        gone = KilledCaller(caller, address)
        once(lambda: len(committed(state)) >= 1)
        gone.kill()
        assert once_ended(address, "one").state == pb.SELECTION_STATE_SUCCEEDED
        assert len(server.scored) == SHARDS
        data.check(caller.call(address))
        assert len(server.scored) == SHARDS
