"""Selections whose callers do not come back end by themselves, also after a restart of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import topb
from support.raw_selections import pool_request
from support.rpc import Request, Spec, Stub, code_and_reason, encoded_chunk
from support.servers import RunningServer, running_server
from support.waiting import once
from topb.v1 import selection_pb2 as pb

pytestmark = pytest.mark.scorer

SECONDS = 2.0
SPEC = Spec(budget=2)


@contextmanager
def server_that_keeps(days: float, data: Path, state: Path) -> Iterator[RunningServer]:
    options = (f"--state={state}", f"--keep-paused-days={days:.9f}", "--lease-seconds=1")
    with running_server(data / "models", data, options=options) as server:
        yield server


def broken_stream(stub: Stub, name: str) -> None:
    """Send a chunk and cancel the call once it is acknowledged."""

    def requests() -> Iterator[Request]:
        yield Request(start=pb.StreamStart(spec=SPEC, request_id=name))
        yield encoded_chunk(0)
        time.sleep(60)

    call = stub.SelectBatchFromStream(requests(), timeout=30)
    assert any(response.HasField("acknowledged") for response in call)
    call.cancel()
    once(lambda: state_of(stub, name) == pb.SELECTION_STATE_PENDING)


def state_of(stub: Stub, name: str) -> pb.SelectionState:
    return stub.GetSelection(pb.GetSelectionRequest(selection=name), timeout=30).selection.state


def test_a_stream_that_nobody_resumes_ends_without_a_caller_even_after_a_restart(
    data: Path, tmp_path: Path
) -> None:
    with (
        server_that_keeps(7, data, tmp_path) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = Stub(channel)
        broken_stream(stub, "broken")
        time.sleep(1.5)
        assert state_of(stub, "broken") == pb.SELECTION_STATE_PENDING
        assert list((tmp_path / "streams").iterdir())
    with (
        server_that_keeps(SECONDS / 86_400, data, tmp_path) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = Stub(channel)
        once(lambda: state_of(stub, "broken") == pb.SELECTION_STATE_FAILED, seconds=15)
        once(lambda: not list((tmp_path / "streams").iterdir()))
        start = Request(start=pb.StreamStart(spec=SPEC, request_id="broken"))
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.SelectBatchFromStream(iter([start])))
        assert code_and_reason(caught.value) == (grpc.StatusCode.NOT_FOUND, "SELECTION_EXPIRED")


def test_a_selection_does_not_end_while_its_caller_waits(data: Path, tmp_path: Path) -> None:
    def silent(name: str) -> Iterator[Request]:
        yield Request(start=pb.StreamStart(spec=SPEC, request_id=name))
        time.sleep(60)

    with (
        server_that_keeps(SECONDS / 86_400, data, tmp_path) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = Stub(channel)
        ahead = [stub.SelectBatchFromStream(silent(name), timeout=60) for name in ("one", "two")]
        for call in ahead:
            assert next(call).HasField("accepted")
        waiting = stub.SelectBatch(pool_request(data / "pool.parquet", "waiting", spec=SPEC), timeout=60)
        assert next(waiting).HasField("started")
        time.sleep(2 * SECONDS)
        for call in ahead:
            call.cancel()
        assert any(event.HasField("summary") for event in waiting)


def test_a_request_id_that_was_used_names_the_fields_that_differ(data: Path, client: topb.Client) -> None:
    request = {"request_id": "used", "strategy": "margin", "exclude": ["a"]}
    client.select_batch(data / "pool.parquet", 3, **request)
    client.select_batch(data / "pool.parquet", 3, **request)
    for changes, differing in (
        ({"budget": 4}, "spec.budget"),
        ({"strategy": "entropy", "seed": 1}, "spec.strategy, spec.seed"),
        ({"exclude": ["a", "b"]}, "spec.exclude.ids"),
        ({"strategy_options": {"diversify": "2"}}, "spec.strategy_options"),
        ({"pool": topb.Pool(data / "pool.parquet", id_column="name")}, "pool.id_column"),
        ({"pool": [("a", b"")]}, "pool.uri"),
    ):
        again = {"pool": data / "pool.parquet", "budget": 3, **request, **changes}
        with pytest.raises(topb.InvalidRequestError, match=f"another {differing}; ") as caught:
            client.select_batch(**again)
        assert caught.value.reason == "REQUEST_ID_REUSED"
        assert caught.value.metadata["differing"] == differing
