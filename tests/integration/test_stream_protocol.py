"""SelectBatchFromStream, message by message."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from support.rpc import START, Request, Stub, encoded_chunk, end, refusal

pytestmark = pytest.mark.scorer


INVALID = StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("requests", "code", "reason"),
    [
        ([], INVALID, "STREAM_OUT_OF_ORDER"),
        ([encoded_chunk(0)], INVALID, "STREAM_OUT_OF_ORDER"),
        ([START, START], INVALID, "STREAM_OUT_OF_ORDER"),
        ([START, Request()], INVALID, "STREAM_OUT_OF_ORDER"),
        ([START, encoded_chunk(0), encoded_chunk(2)], INVALID, "CHUNK_OUT_OF_SEQUENCE"),
        ([START, encoded_chunk(0, crc32=1)], INVALID, "CHUNK_CHECKSUM"),
        ([START, encoded_chunk(0), end(2)], INVALID, "STREAM_CUT_SHORT"),
        ([START, encoded_chunk(0)], INVALID, "STREAM_CUT_SHORT"),
        ([START, Request(chunk={"ids": ["a"]})], INVALID, "CHUNK_MALFORMED"),
        (
            [START, Request(chunk={"ids": ["a"], "packed": {"data": bytes(9 * 2**20)}})],
            StatusCode.RESOURCE_EXHAUSTED,
            "CHUNK_TOO_LARGE",
        ),
        (
            [START, Request(chunk={"ids": ["a"] * 16_385, "encoded": {"data": [b""] * 16_385}})],
            StatusCode.RESOURCE_EXHAUSTED,
            "CHUNK_TOO_LARGE",
        ),
    ],
)
def test_a_stream_that_breaks_the_protocol_is_refused(
    requests: list[Request], code: StatusCode, reason: str, stub: Stub
) -> None:
    assert refusal(stub.SelectBatchFromStream(iter(requests))) == (code, reason)


def test_each_chunk_is_acknowledged_in_order_before_the_summary(stub: Stub) -> None:
    requests = [START, encoded_chunk(0, ids=("a", "b", "c")), encoded_chunk(1, ids=("d",)), end(2)]
    responses = list(stub.SelectBatchFromStream(iter(requests)))
    kinds = [response.WhichOneof("event") for response in responses]

    assert kinds[0] == "accepted"
    assert [r.acknowledged.seq for r in responses if r.WhichOneof("event") == "acknowledged"] == [0, 1]
    assert kinds[-2:] == ["summary", "picks"]


def test_a_repeated_chunk_is_acknowledged_but_not_scored_again(stub: Stub) -> None:
    durable = threading.Event()

    def requests() -> Iterator[Request]:
        yield START
        yield encoded_chunk(0, ids=("a", "b"))
        yield encoded_chunk(0, ids=("a", "b"))
        yield encoded_chunk(1, ids=("c",))
        # Chunk 1 is acknowledged while nothing follows it.
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


def test_a_call_whose_stream_another_call_continues_is_told_so_and_not_that_it_was_cancelled(
    stub: Stub,
) -> None:
    spec = START.start.spec
    start = Request(start={"spec": spec, "request_id": "taken over"})
    let_go, refused = threading.Event(), threading.Event()

    def silent() -> Iterator[Request]:
        yield start
        yield encoded_chunk(0, ids=("a", "b"))
        let_go.wait()

    def continued() -> Iterator[Request]:
        yield start
        refused.wait()
        yield from (encoded_chunk(1, ids=("c",)), end(2))

    older = stub.SelectBatchFromStream(silent())
    while next(older).WhichOneof("event") != "acknowledged":
        pass
    newer = stub.SelectBatchFromStream(continued())
    assert refusal(older) == (StatusCode.ABORTED, "STREAM_TAKEN_OVER")
    refused.set()
    let_go.set()
    responses = list(newer)
    assert responses[0].accepted.next_seq == 1
    assert responses[-1].WhichOneof("event") == "picks"
