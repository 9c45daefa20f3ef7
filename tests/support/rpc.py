"""Messages and errors of the service, for tests that call it without the SDK."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from support.images import encode, random_image
from topb.v1 import selection_pb2

Request = selection_pb2.SelectBatchFromStreamRequest
Spec = selection_pb2.SelectionSpec
START = Request(start=selection_pb2.StreamStart(spec=Spec(budget=2)))


def refusal(call: Iterator[object]) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return code_and_reason(caught.value)


def code_and_reason(error: BaseException | None) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason of a call's error."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "topb"
    return error.code(), info.reason


def retry_seconds(error: grpc.RpcError) -> float:
    """Return the delay that a call's error asks for."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()


def encoded_chunk(seq: int, *, ids: tuple[str, ...] = ("a",), crc32: int | None = None) -> Request:
    images = [encode(random_image(i)) for i in range(len(ids))]
    actual = zlib.crc32(b"".join(images))
    return Request(
        chunk=selection_pb2.PoolChunk(
            seq=seq,
            crc32=actual if crc32 is None else crc32,
            ids=ids,
            encoded=selection_pb2.EncodedImages(data=images),
        )
    )


def packed_chunk(data: bytes, *, height: int, width: int, ids: tuple[str, ...] = ("a",)) -> Request:
    packed = selection_pb2.PackedImages(data=data, height=height, width=width)
    return Request(chunk=selection_pb2.PoolChunk(seq=0, crc32=zlib.crc32(data), ids=ids, packed=packed))


def end(chunks: int) -> Request:
    return Request(end=selection_pb2.StreamEnd(chunks=chunks))


def slow_rows(seconds: float = 30.0) -> Iterator[tuple[str, bytes]]:
    """Yield the rows of a pool slowly."""
    deadline = time.monotonic() + seconds
    image = encode(random_image(0))
    row = 0
    while time.monotonic() < deadline:
        yield f"row-{row}", image
        row += 1
        time.sleep(0.01)
