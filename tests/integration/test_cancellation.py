"""When a call ends early, its work stops within a batch and leaves nothing in the server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from support.bundles import write_bundle
from support.crashing_server import CrashingServer, crashing_server
from support.images import encode, random_image, random_pool, write_parquet
from support.raw_selections import KilledCaller, PoolCaller, chunks_of, pool_request
from support.rpc import Request, code_and_reason, end, retry_seconds
from support.waiting import once
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

pytestmark = pytest.mark.scorer

BATCH = 8
BATCH_SECONDS = 0.15
SHARD_ROWS = 16
ROWS = 40 * SHARD_ROWS
# One batch runs when the call ends and one before the server notices; more if the machine is busy.
BATCHES_AFTER_THE_END = 5
STOP_SECONDS = 15.0
OPTIONS = (
    f"--batch-size={BATCH}",
    "--lease-seconds=2",
    "--grace-seconds=0.3",
    "--decode-threads=2",
    "--keepalive-seconds=1",
)
SPEC = pb.SelectionSpec(budget=5)
# The threads that answer calls stay; those of a selection must end with it.
OF_ONE_SELECTION = ("read", "decode", "lease")


@dataclass(frozen=True)
class Server:
    """A server with slow batches, and a pool for it."""

    running: CrashingServer
    address: str
    stub: selection_pb2_grpc.SelectionServiceStub
    pool: Path
    rows: list[tuple[str, bytes]]

    @property
    def pid(self) -> int:
        pid: int = self.running.process.pid
        return pid

    def begin(self, rpc: str, name: str, *, timeout: float | None = None) -> Call:
        """Start a selection and wait until it has scored a shard."""
        if rpc == "SelectBatch":
            call = Call(self.stub.SelectBatch(pool_request(self.pool, name, spec=SPEC), timeout=timeout))
        else:
            call = Call(self.stub.SelectBatchFromStream(self.stream(name), timeout=timeout))
        scored = len(self.running.scored)
        once(lambda: len(self.running.scored) > scored)
        return call

    def stream(self, name: str) -> Iterator[Request]:
        chunks = chunks_of(self.rows, SHARD_ROWS)
        yield Request(start=pb.StreamStart(spec=SPEC, request_id=name))
        yield from (Request(chunk=chunk) for chunk in chunks)
        yield end(len(chunks))

    def state(self, name: str) -> pb.Selection:
        return self.stub.GetSelection(pb.GetSelectionRequest(selection=name), timeout=30).selection


class Call:
    """A call whose responses a thread reads until it ends."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.error: grpc.RpcError | None = None
        self.responses = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for _ in self.call:
                self.responses += 1
        except grpc.RpcError as error:
            self.error = error

    def code(self) -> grpc.StatusCode | None:
        """Wait for the end of the call and return its status code."""
        self._thread.join(30)
        assert isinstance(self.error, grpc.Call)
        code: grpc.StatusCode = self.error.code()
        return code


def threads_of_selections(pid: int) -> list[str]:
    """Return the names of the server's threads that belong to a single selection."""
    names = _of_each(Path(f"/proc/{pid}/task"), lambda task: (task / "comm").read_text())
    return [name for name in names if name.startswith(OF_ONE_SELECTION)]


def open_files(pid: int, below: Path) -> list[str]:
    """Return the files of pools and score logs that the server has open; its catalog may stay open."""
    paths = _of_each(Path(f"/proc/{pid}/fd"), lambda descriptor: str(descriptor.readlink()))
    return [path for path in paths if path.startswith(str(below)) and "sqlite" not in path]


def _of_each(folder: Path, read: Callable[[Path], str]) -> Iterator[str]:
    for path in folder.iterdir():
        # A thread may end, and a file be closed, while the folder is listed.
        with contextlib.suppress(OSError):
            yield read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cancellation")
    write_bundle(folder / "models")
    write_parquet(folder / "pool.parquet", random_pool(ROWS), row_group=SHARD_ROWS)
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[Server]:
    state = tmp_path / "state"
    # Under a name of its own, so that none of it is scored yet.
    pool = folder / f"{tmp_path.name}.parquet"
    pool.write_bytes((folder / "pool.parquet").read_bytes())
    with crashing_server(folder, state, options=OPTIONS, batch_seconds=BATCH_SECONDS) as running:
        address = running.ready_address()
        with grpc.insecure_channel(address) as channel:
            stub = selection_pb2_grpc.SelectionServiceStub(channel)
            yield Server(running, address, stub, pool, random_pool(ROWS))


def assert_nothing_is_left(server: Server, *folders: Path) -> None:
    once(lambda: not threads_of_selections(server.pid), seconds=5)
    for folder in folders:
        once(lambda folder=folder: not open_files(server.pid, folder), seconds=5)  # type: ignore[misc]


def settled_batches(server: Server) -> int:
    """Wait until no batch has run for the time of four, and return how many ran."""
    while True:
        batches = server.running.batches
        time.sleep(4 * BATCH_SECONDS)
        if server.running.batches == batches:
            return batches


def assert_it_stopped(server: Server, name: str, *, batches: int, state: pb.SelectionState) -> None:
    """Assert that it reaches the state within a few batches after `batches`, and that none follow."""
    once(lambda: server.state(name).state == state, seconds=STOP_SECONDS)
    after = server.running.batches
    assert after - batches <= BATCHES_AFTER_THE_END
    assert settled_batches(server) == after, "work continued"


RPCS = pytest.mark.parametrize("rpc", ["SelectBatch", "SelectBatchFromStream"])


@RPCS
@pytest.mark.parametrize("ending", ["cancel", "deadline", "disconnect", "CancelSelection"])
def test_work_of_an_ended_call_stops_within_a_batch_and_leaves_no_files(
    rpc: str, ending: str, server: Server, folder: Path, tmp_path: Path
) -> None:
    state, code = pb.SELECTION_STATE_PENDING, grpc.StatusCode.CANCELLED
    if ending == "disconnect":
        channel = grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub = selection_pb2_grpc.SelectionServiceStub(channel)
        call = replace(server, stub=stub).begin(rpc, "one")
        channel.close()
    elif ending == "deadline":
        call = server.begin(rpc, "one", timeout=1.5)
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        assert call.code() == code
    else:
        call = server.begin(rpc, "one")
    batches = server.running.batches
    if ending == "cancel":
        call.call.cancel()
    if ending == "CancelSelection":
        with grpc.insecure_channel(server.address) as other:
            stub = selection_pb2_grpc.SelectionServiceStub(other)
            answer = stub.CancelSelection(pb.CancelSelectionRequest(selection="one"), timeout=30)
        assert answer.selection.state == pb.SELECTION_STATE_CANCELLED
        state = pb.SELECTION_STATE_CANCELLED
    assert_it_stopped(server, "one", batches=batches, state=state)
    assert call.code() == code
    assert_nothing_is_left(server, folder, tmp_path)


def test_a_selection_continues_while_another_caller_waits(server: Server) -> None:
    first = server.begin("SelectBatch", "one")
    second = Call(server.stub.SelectBatch(pool_request(server.pool, "one", spec=SPEC)))
    once(lambda: second.responses > 0)
    first.call.cancel()
    scored = len(server.running.scored)
    once(lambda: len(server.running.scored) > scored + 2)
    assert server.state("one").state == pb.SELECTION_STATE_RUNNING
    batches = server.running.batches
    second.call.cancel()
    assert_it_stopped(server, "one", batches=batches, state=pb.SELECTION_STATE_PENDING)


@RPCS
def test_a_shutdown_stops_running_selections_after_the_grace_period(
    rpc: str, server: Server, tmp_path: Path
) -> None:
    call = server.begin(rpc, "one")
    started = time.monotonic()
    server.running.signal(signal.SIGTERM)
    assert call.code() == grpc.StatusCode.UNAVAILABLE
    assert code_and_reason(call.error) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert retry_seconds(call.error) == 5
    server.running.process.join(15)
    assert server.running.process.exitcode == 0
    assert time.monotonic() - started < 0.3 + STOP_SECONDS
    assert not list(tmp_path.rglob(".unpublished-*"))


def test_a_frozen_caller_is_noticed_because_it_does_not_answer_pings(server: Server) -> None:
    caller = KilledCaller(PoolCaller(pool_request(server.pool, "frozen", spec=SPEC)), server.address)
    try:
        once(lambda: len(server.running.scored) > 1)
        os.kill(caller.pid, signal.SIGSTOP)
        once(lambda: server.state("frozen").state == pb.SELECTION_STATE_PENDING, seconds=STOP_SECONDS)
    finally:
        caller.kill()


UNARY: tuple[Callable[[selection_pb2_grpc.SelectionServiceStub], grpc.Future], ...] = (
    lambda stub: stub.ScoreImages.future(pb.ScoreImagesRequest(images=[encode(random_image(0))] * 64)),
    lambda stub: stub.ListSelections.future(pb.ListSelectionsRequest()),
    lambda stub: stub.GetSelection.future(pb.GetSelectionRequest(selection="none")),
    lambda stub: stub.ListPicks.future(pb.ListPicksRequest(selection="none")),
    lambda stub: stub.GetServerInfo.future(pb.GetServerInfoRequest()),
)


@pytest.mark.parametrize("ending", ["cancel", "disconnect"])
def test_a_short_call_that_loses_its_caller_leaves_nothing_behind(
    ending: str, server: Server, tmp_path: Path
) -> None:
    for call in UNARY * 20:
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            future = call(selection_pb2_grpc.SelectionServiceStub(other))
            if ending == "cancel":
                future.cancel()
    server.stub.ListSelections(pb.ListSelectionsRequest(), timeout=5)
    assert_nothing_is_left(server, tmp_path)


def test_score_images_stops_within_a_batch(server: Server) -> None:
    """Of 32 batches that take 0.15 s each, about two run."""
    images = [encode(random_image(i)) for i in range(256)]
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.ScoreImages(pb.ScoreImagesRequest(images=images), timeout=0.5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    before_the_end = round(0.5 / BATCH_SECONDS)
    assert settled_batches(server) <= before_the_end + BATCHES_AFTER_THE_END


def test_a_shutdown_does_not_wait_until_all_images_of_a_request_are_decoded(server: Server) -> None:
    """To decode them all takes longer than a shutdown may take."""
    images = [encode(np.full((3000, 3000, 3), 7, np.uint8))] * 256
    call = server.stub.ScoreImages.future(pb.ScoreImagesRequest(images=images))
    # The server answers this call only when it has received the other one.
    server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=30)
    server.running.signal(signal.SIGTERM)
    server.running.process.join(STOP_SECONDS)
    assert server.running.process.exitcode == 0
    assert call.code() == grpc.StatusCode.UNAVAILABLE


def test_many_calls_that_lose_their_callers_leak_no_objects(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    def lose(first: int, count: int) -> None:
        for i in range(first, first + count):
            for rpc in ("SelectBatch", "SelectBatchFromStream"):
                name = f"{rpc}-{i}"
                call = server.begin(rpc, name)
                call.call.cancel()
                once(lambda name=name: server.state(name).state == pb.SELECTION_STATE_PENDING)  # type: ignore[misc]
        assert_nothing_is_left(server, folder, tmp_path)

    lose(0, 2)
    before = server.running.live_objects()
    lose(2, 5)

    def leaked() -> dict[str, int]:
        after = server.running.live_objects()
        return {name: count for name, count in after.items() if count >= before[name] + 5}

    with contextlib.suppress(AssertionError):
        # The last stream may still hold chunks for a moment.
        once(lambda: not leaked(), seconds=10)
    assert leaked() == {}
