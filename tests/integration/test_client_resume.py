"""A client whose server is killed and restarted on the same port and state: nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import topb
from support.images import random_image
from support.servers import free_port, running_server
from topb._pool_stream import PoolStream, Request, Response

pytestmark = pytest.mark.scorer

# Arrays of 48 KiB, about forty per chunk.
ROWS = 600
SIDE = 128
PATIENT = topb.RetryPolicy(attempts=200, initial_delay=0.1, maximum_delay=0.5)


def rows() -> Iterator[tuple[str, object]]:
    for i in range(ROWS):
        yield f"img-{i:05d}", random_image(i, SIDE, SIDE)


class Restarting:
    """A server that can be killed and restarted on the same port and state."""

    def __init__(self, data: Path, state: Path, servers: contextlib.ExitStack) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._data = data
        self._options = ("--state", str(state), "--lease-seconds=1", f"--listen={self.address}")
        self._servers = servers
        self.start()

    def start(self) -> None:
        running = running_server(self._data / "models", self._data, options=self._options)
        self._process = self._servers.enter_context(running).process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()


@pytest.fixture
def restarting(data: Path, tmp_path: Path) -> Iterator[Restarting]:
    with contextlib.ExitStack() as servers:
        yield Restarting(data, tmp_path / "state", servers)


class Wire:
    """Records the chunks that the client sent and the acknowledgements that it received."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self.sent: list[int] = []
        self.at_chunk: dict[int, Callable[[], None]] = {}

    def note(self, message: Request | Response | None) -> None:
        if isinstance(message, Request) and message.HasField("chunk"):
            seq = message.chunk.seq
            assert seq not in self.acknowledged, f"chunk {seq} was acknowledged, and is sent again"
            self.sent.append(seq)
            self.at_chunk.pop(seq, lambda: None)()
        elif isinstance(message, Response) and message.HasField("acknowledged"):
            self.acknowledged.add(message.acknowledged.seq)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    send, receive = PoolStream.next_request, PoolStream.receive

    def next_request(stream: PoolStream) -> Request | None:
        request = send(stream)
        wire.note(request)
        return request

    def received(stream: PoolStream, response: Response) -> None:
        wire.note(response)
        receive(stream, response)

    monkeypatch.setattr(PoolStream, "next_request", next_request)
    monkeypatch.setattr(PoolStream, "receive", received)
    return wire


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> topb.SelectionResult:
    with (
        running_server(data / "models") as server,
        topb.Client(server.address, timeout=120) as client,
    ):
        return client.select_batch(rows(), 40)


def select(address: str, request_id: str | None = None) -> topb.SelectionResult:
    with topb.Client(address, timeout=240, retry=PATIENT) as client:
        return client.select_batch(rows(), 40, request_id=request_id)


def select_in_a_loop(address: str) -> topb.SelectionResult:
    async def selecting() -> topb.SelectionResult:
        async with topb.AsyncClient(address, timeout=240, retry=PATIENT) as client:
            return await client.select_batch(rows(), 40)

    return asyncio.run(selecting())


@pytest.mark.parametrize("selecting", [select, select_in_a_loop], ids=["blocking", "asynchronous"])
def test_a_streamed_selection_survives_the_death_of_its_server(
    selecting: Callable[[str], topb.SelectionResult],
    restarting: Restarting,
    wire: Wire,
    undisturbed: topb.SelectionResult,
) -> None:
    restarts = [threading.Thread(target=restarting.restart) for _ in range(2)]
    wire.at_chunk = {5: restarts[0].start, 12: restarts[1].start}
    result = selecting(restarting.address)
    for thread in restarts:
        thread.join()

    assert (result.picks, result.accounts) == (undisturbed.picks, undisturbed.accounts)


def test_a_killed_client_continues_under_its_request_id(
    restarting: Restarting, wire: Wire, undisturbed: topb.SelectionResult
) -> None:
    def some_rows() -> Iterator[tuple[str, object]]:
        yield from itertools.islice(rows(), ROWS - 100)
        raise KeyboardInterrupt

    with topb.Client(restarting.address, timeout=240) as client, pytest.raises(KeyboardInterrupt):
        client.select_batch(some_rows(), 40, request_id="round-1")
    assert len(wire.acknowledged) > 2
    restarting.restart()

    result = select(restarting.address, "round-1")
    assert (result.picks, result.accounts) == (undisturbed.picks, undisturbed.accounts)

    wire.sent.clear()
    assert select(restarting.address, "round-1") == result
    assert wire.sent == []


def test_a_served_selection_survives_the_death_of_its_server(restarting: Restarting, data: Path) -> None:
    with topb.Client(restarting.address, timeout=240, retry=PATIENT) as client:
        expected = client.select_batch(data / "pool.parquet", 25, strategy="margin")
        restarting.kill()
        starting = threading.Timer(0.5, restarting.start)
        starting.start()
        result = client.select_batch(data / "pool.parquet", 25, strategy="margin")
        starting.join()
    assert (result.picks, result.accounts) == (expected.picks, expected.accounts)


def test_a_submitted_selection_survives_the_death_of_its_server(restarting: Restarting, data: Path) -> None:
    with topb.Client(restarting.address, timeout=240, retry=PATIENT) as client:
        expected = client.select_batch(data / "pool.parquet", 25)
        handle = client.submit(data / "pool.parquet", 25, request_id="round-2")
        restarting.restart()
        result = handle.result()
        assert (result.picks, result.accounts) == (expected.picks, expected.accounts)
        assert client.selection("round-2").state() is topb.SelectionState.SUCCEEDED
        listed = list(client.list_selections(states=[topb.SelectionState.SUCCEEDED]))
        assert [selection.id for selection in listed] == [handle.id, expected.selection]
