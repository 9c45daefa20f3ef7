"""SelectBatchFromStream, message by message."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from support.rpc import START, Request, encoded_chunk, end, packed_chunk, refusal
from topb.v1 import selection_pb2, selection_pb2_grpc

pytestmark = pytest.mark.scorer


@pytest.mark.parametrize(
    ("requests", "code", "reason"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([encoded_chunk(0)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, START], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, Request()], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_OUT_OF_ORDER"),
        ([START, encoded_chunk(1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_OUT_OF_SEQUENCE"),
        (
            [START, encoded_chunk(0), encoded_chunk(2)],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_OUT_OF_SEQUENCE",
        ),
        ([START, encoded_chunk(0, crc32=1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_CHECKSUM"),
        ([START, encoded_chunk(0), end(2)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_CUT_SHORT"),
        ([START, encoded_chunk(0)], grpc.StatusCode.INVALID_ARGUMENT, "STREAM_CUT_SHORT"),
        (
            [START, packed_chunk(b"12", height=1, width=1)],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_MALFORMED",
        ),
        ([START, packed_chunk(b"", height=0, width=1)], grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_MALFORMED"),
        (
            [START, packed_chunk(bytes(9 * 2**20), height=1, width=3 * 2**20)],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CHUNK_TOO_LARGE",
        ),
        (
            [START, Request(chunk=selection_pb2.PoolChunk(ids=["a"]))],
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHUNK_MALFORMED",
        ),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_refused(
    requests: list[Request], code: grpc.StatusCode, reason: str, channel: grpc.Channel
) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)

    assert refusal(stub.SelectBatchFromStream(iter(requests))) == (code, reason)


def test_each_chunk_is_acknowledged_in_order_before_the_summary(channel: grpc.Channel) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    requests = [START, encoded_chunk(0, ids=("a", "b", "c")), encoded_chunk(1, ids=("d",)), end(2)]
    responses = list(stub.SelectBatchFromStream(iter(requests)))
    kinds = [response.WhichOneof("event") for response in responses]

    assert kinds[0] == "accepted"
    assert [r.acknowledged.seq for r in responses if r.WhichOneof("event") == "acknowledged"] == [0, 1]
    assert kinds[-2:] == ["summary", "picks"]


def test_a_repeated_chunk_is_acknowledged_but_not_scored_again(channel: grpc.Channel) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    durable = threading.Event()

    def requests() -> Iterator[Request]:
        yield START
        yield encoded_chunk(0, ids=("a", "b"))
        yield encoded_chunk(0, ids=("a", "b"))
        yield encoded_chunk(1, ids=("c",))
        assert durable.wait(30)
        yield encoded_chunk(0, ids=("a", "b"))
        yield encoded_chunk(1, ids=("c",))
        yield end(2)

    acknowledged, accounts = [], None
    for response in stub.SelectBatchFromStream(requests()):
        if response.WhichOneof("event") == "acknowledged":
            acknowledged.append(response.acknowledged.seq)
            if response.acknowledged.seq == 1:
                durable.set()
        if response.WhichOneof("event") == "summary":
            accounts = response.summary.accounts
    assert acknowledged[-4:] in ([0, 1, 0, 1], [1, 0, 0, 1])
    assert accounts is not None
    assert (accounts.read, accounts.scored, accounts.duplicate) == (3, 3, 0)


def test_a_chunk_is_acknowledged_while_the_caller_holds_back_the_next(channel: grpc.Channel) -> None:
    stub = selection_pb2_grpc.SelectionServiceStub(channel)
    acknowledged = threading.Event()

    def requests() -> Iterator[Request]:
        yield START
        yield encoded_chunk(0)
        assert acknowledged.wait(30), "chunk 0 was not acknowledged while chunk 1 was held back"
        yield encoded_chunk(1, ids=("z",))
        yield end(2)

    summary = None
    for response in stub.SelectBatchFromStream(requests()):
        if response.WhichOneof("event") == "acknowledged":
            acknowledged.set()
        if response.WhichOneof("event") == "summary":
            summary = response.summary
    assert summary is not None
    assert summary.accounts.scored == 2
