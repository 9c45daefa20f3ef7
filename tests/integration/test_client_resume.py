"""A client whose server is killed and restarted on the same port and state: nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import topb
from support.images import random_image
from support.servers import RunningServer, free_port, running_server
from topb import _pool_stream

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

    def __init__(self, data: Path, state: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._data = data
        self._options = ("--state", str(state), "--lease-seconds=1", f"--listen={self.address}")
        self._open = contextlib.ExitStack()
        self._server: RunningServer | None = None

    def __enter__(self) -> Restarting:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self) -> None:
        running = running_server(self._data / "models", self._data, options=self._options)
        self._server = self._open.enter_context(running)

    def kill(self) -> None:
        assert self._server is not None
        self._server.process.kill()
        self._server.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()


@pytest.fixture
def restarting(data: Path, tmp_path: Path) -> Iterator[Restarting]:
    with Restarting(data, tmp_path / "state") as server:
        yield server


class Wire:
    """Records the chunks that the client sent and the acknowledgements that it received."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.acknowledged: set[int] = set()
        self.sent: list[int] = []
        self.sent_again_though_acknowledged: list[int] = []
        self.at_chunk: dict[int, Callable[[], None]] = {}
        send, receive = _pool_stream.PoolStream.next_request, _pool_stream.PoolStream.receive

        def next_request(stream: _pool_stream.PoolStream) -> _pool_stream.Request | None:
            request = send(stream)
            if request is not None and request.WhichOneof("message") == "chunk":
                seq = request.chunk.seq
                self.sent.append(seq)
                if seq in self.acknowledged:
                    self.sent_again_though_acknowledged.append(seq)
                self.at_chunk.pop(seq, lambda: None)()
            return request

        def received(stream: _pool_stream.PoolStream, response: _pool_stream.Response) -> None:
            if response.WhichOneof("event") == "acknowledged":
                self.acknowledged.add(response.acknowledged.seq)
            receive(stream, response)

        monkeypatch.setattr(_pool_stream.PoolStream, "next_request", next_request)
        monkeypatch.setattr(_pool_stream.PoolStream, "receive", received)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> topb.SelectionResult:
    with (
        running_server(data / "models") as server,
        topb.Client(server.address, timeout=120) as client,
    ):
        return client.select_batch(rows(), 40)


def select(address: str, asynchronous: bool, **options: object) -> topb.SelectionResult:
    if not asynchronous:
        with topb.Client(address, timeout=240, retry=PATIENT) as client:
            return client.select_batch(rows(), 40, **options)  # type: ignore[arg-type]

    async def selecting() -> topb.SelectionResult:
        async with topb.AsyncClient(address, timeout=240, retry=PATIENT) as client:
            return await client.select_batch(rows(), 40, **options)  # type: ignore[arg-type]

    return asyncio.run(selecting())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_a_stream_outlives_its_server(
    asynchronous: bool, restarting: Restarting, wire: Wire, undisturbed: topb.SelectionResult
) -> None:
    restarts: list[threading.Thread] = []

    def restart() -> None:
        restarts.append(threading.Thread(target=restarting.restart))
        restarts[-1].start()

    wire.at_chunk = {5: restart, 12: restart}
    result = select(restarting.address, asynchronous)
    for thread in restarts:
        thread.join()

    assert len(restarts) == 2
    assert (result.picks, result.accounts) == (undisturbed.picks, undisturbed.accounts)
    assert wire.sent_again_though_acknowledged == []


def test_a_killed_client_continues_under_its_request_id(
    restarting: Restarting, wire: Wire, undisturbed: topb.SelectionResult
) -> None:
    class GoneError(Exception):
        """Stands for the end of the first client process."""

    def some_rows() -> Iterator[tuple[str, object]]:
        for i, row in enumerate(rows()):
            if i == ROWS - 100:
                raise GoneError
            yield row

    with topb.Client(restarting.address, timeout=240) as client, pytest.raises(GoneError):
        client.select_batch(some_rows(), 40, request_id="round-1")
    acknowledged = set(wire.acknowledged)
    assert len(acknowledged) > 2
    wire.sent.clear()
    restarting.restart()

    result = select(restarting.address, False, request_id="round-1")
    assert (result.picks, result.accounts) == (undisturbed.picks, undisturbed.accounts)
    assert not acknowledged & set(wire.sent)

    wire.sent.clear()
    again = select(restarting.address, False, request_id="round-1")
    assert again == result
    assert wire.sent == []


def test_a_served_selection_outlives_its_server(restarting: Restarting, data: Path) -> None:
    with topb.Client(restarting.address, timeout=240, retry=PATIENT) as client:
        expected = client.select_batch(data / "pool.parquet", 25, strategy="margin")
        restarting.kill()
        starting = threading.Timer(0.5, restarting.start)
        starting.start()
        result = client.select_batch(data / "pool.parquet", 25, strategy="margin")
        starting.join()
    assert (result.picks, result.accounts) == (expected.picks, expected.accounts)


def test_a_submitted_selection_runs_on_and_its_result_is_fetched_from_the_next_server(
    restarting: Restarting, data: Path
) -> None:
    with topb.Client(restarting.address, timeout=240, retry=PATIENT) as client:
        expected = client.select_batch(data / "pool.parquet", 25)
        handle = client.submit(data / "pool.parquet", 25, request_id="round-2")
        restarting.restart()
        result = handle.result()
        assert (result.picks, result.accounts) == (expected.picks, expected.accounts)
        assert client.selection("round-2").state() is topb.SelectionState.SUCCEEDED
        listed = list(client.list_selections(states=[topb.SelectionState.SUCCEEDED]))
        assert [selection.id for selection in listed] == [handle.id, expected.selection]
