"""Selections wait in a fair queue, and callers that are silent or gone hold no slot."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest

import topb
from support.images import random_pool
from support.raw_selections import KilledCaller, StreamCaller, chunks_of, pool_request
from support.rpc import Request, Spec, Stub, code_and_reason, encoded_chunk, end, refusal
from support.servers import RunningServer, running_server
from support.waiting import once
from topb.v1 import selection_pb2 as pb

pytestmark = pytest.mark.scorer

SLOTS = 2
IDLE_SECONDS = 1.0
SPEC = Spec(budget=2)


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[RunningServer]:
    """A server with short limits."""
    options = (
        f"--max-concurrent-selections={SLOTS}",
        f"--stream-idle-seconds={IDLE_SECONDS}",
        "--keepalive-seconds=1",
        "--lease-seconds=2",
    )
    with running_server(data / "models", data, options=options) as running:
        yield running


class Silent:
    """A caller that starts a stream, and then sends nothing until it is released."""

    def __init__(self, stub: Stub, name: str, *requests: Request) -> None:
        self._released = threading.Event()
        self._requests = [Request(start=pb.StreamStart(spec=SPEC, request_id=name)), *requests]
        self.call = stub.SelectBatchFromStream(self._sent(), timeout=60)

    def _sent(self) -> Iterator[Request]:
        yield from self._requests
        self._released.wait(60)

    def error(self) -> grpc.RpcError:
        """Wait until the server ends the call, and return its error."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.call)
        self._released.set()
        return caught.value

    def cancel(self) -> None:
        self.call.cancel()
        self._released.set()


@pytest.fixture
def silent(stub: Stub) -> Iterator[Callable[..., Silent]]:
    callers: list[Silent] = []

    def silent(name: str, *requests: Request) -> Silent:
        callers.append(Silent(stub, name, *requests))
        return callers[-1]

    yield silent
    for caller in callers:
        caller.cancel()


def selection(stub: Stub, name: str) -> pb.Selection:
    return stub.GetSelection(pb.GetSelectionRequest(selection=name), timeout=30).selection


def all_slots_taken(silent: Callable[..., Silent], name: str) -> list[Silent]:
    """Start a silent caller for each slot, and wait until they have the slots."""
    callers = [silent(f"{name}-{i}") for i in range(SLOTS)]
    for caller in callers:
        assert next(caller.call).HasField("accepted")
    return callers


def test_thirty_honest_callers_finish_although_two_silent_ones_came_first(
    data: Path, server: RunningServer, silent: Callable[..., Silent]
) -> None:
    silent_callers = all_slots_taken(silent, "load")

    def select(number: int) -> int:
        retry = topb.RetryPolicy(attempts=2)
        pool = data / "pool.parquet" if number % 3 == 0 else random_pool(40)
        with topb.Client(server.address, timeout=120, retry=retry) as client:
            return len(client.select_batch(pool, 3, seed=number).ids)

    with ThreadPoolExecutor(30) as threads:
        assert list(threads.map(select, range(30))) == [3] * 30
    for caller in silent_callers:
        assert code_and_reason(caller.error()) == (grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE")


def test_an_idle_stream_keeps_what_was_scored_and_its_caller_resumes(
    stub: Stub, silent: Callable[..., Silent]
) -> None:
    idle = silent("resumed", encoded_chunk(0, ids=("a", "b")))
    assert code_and_reason(idle.error())[1] == "STREAM_IDLE"
    assert selection(stub, "resumed").state == pb.SELECTION_STATE_PENDING

    start = Request(start=pb.StreamStart(spec=SPEC, request_id="resumed"))
    responses = list(stub.SelectBatchFromStream(iter([start, encoded_chunk(1, ids=("c",)), end(2)])))
    assert responses[0].accepted.next_seq == 1
    (summary,) = [response.summary for response in responses if response.HasField("summary")]
    assert summary.accounts.scored == 3


def test_a_slow_pool_gives_its_slot_back_and_the_sdk_resumes(server: RunningServer) -> None:
    pause = threading.Event()

    def slow() -> Iterator[tuple[str, bytes]]:
        for row, (id_, image) in enumerate(random_pool(20)):
            if row % 5 == 0:
                pause.wait(2 * IDLE_SECONDS)
            yield id_, image

    with topb.Client(server.address, timeout=60, retry=topb.RetryPolicy(attempts=2)) as client:
        assert client.select_batch(slow(), 3).accounts.scored == 20


def test_frozen_callers_hold_no_slot(server: RunningServer, stub: Stub) -> None:
    names = [f"frozen-{i}" for i in range(SLOTS)]
    chunks = chunks_of(list(random_pool(8)), 8)
    callers = [
        KilledCaller(
            StreamCaller(pb.StreamStart(spec=SPEC, request_id=name), chunks, end=False), server.address
        )
        for name in names
    ]
    try:
        for name in names:
            once(lambda name=name: known(stub, name))  # type: ignore[misc]
        for caller in callers:
            os.kill(caller.pid, signal.SIGSTOP)
        with topb.Client(server.address, timeout=30) as client:
            assert len(client.select_batch(random_pool(20), 3).ids) == 3
    finally:
        for caller in callers:
            caller.kill()


def known(stub: Stub, name: str) -> bool:
    try:
        return bool(selection(stub, name).id)
    except grpc.RpcError:
        return False


def test_callers_see_their_place_and_advance_when_others_leave(data: Path) -> None:
    """The silent callers keep their slots, because this server is patient."""
    pool = data / "pool.parquet"
    with (
        running_server(data / "models", data) as patient,
        grpc.insecure_channel(patient.address) as channel,
    ):
        stub = Stub(channel)
        ahead = all_slots_taken(partial(Silent, stub), "ahead")
        first = Silent(stub, "first")
        once(lambda: place_of(stub, "first") == (1, 1))
        second = stub.SelectBatch(pool_request(pool, "second", spec=SPEC), timeout=60)
        once(lambda: place_of(stub, "second") == (2, 2))
        third = stub.SelectBatch(pool_request(pool, "third", spec=SPEC), timeout=60)
        once(lambda: place_of(stub, "third") == (3, 3))
        pending = pb.ListSelectionsRequest(states=[pb.SELECTION_STATE_PENDING])
        listed = stub.ListSelections(pending, timeout=30).selections
        assert [entry.progress.queue.position for entry in listed] == [3, 2, 1]

        # One caller cancels its call, and an operator cancels the next selection: both leave the queue.
        first.cancel()
        once(lambda: place_of(stub, "third") == (2, 2))
        stub.CancelSelection(pb.CancelSelectionRequest(selection="second"), timeout=30)
        once(lambda: place_of(stub, "third") == (1, 1))
        assert refusal(second)[1] == "SELECTION_CANCELLED"
        for caller in ahead:
            caller.cancel()
        events = list(third)
        assert events[0].HasField("started")
        assert events[1].progress.queue == pb.QueuePlace(position=3, length=3)
        assert any(event.HasField("summary") for event in events)


def place_of(stub: Stub, name: str) -> tuple[int, int]:
    try:
        queue = selection(stub, name).progress.queue
    except grpc.RpcError:
        return (0, 0)
    return (queue.position, queue.length)


def test_detached_selections_run_one_after_another_without_a_caller(
    data: Path, server: RunningServer
) -> None:
    with topb.Client(server.address, timeout=30) as client:
        handles = [client.submit(data / "pool.parquet", 3, seed=seed) for seed in range(10)]
        for handle in handles:
            assert len(handle.result(30).ids) == 3
