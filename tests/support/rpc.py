"""Messages and errors of the service, for tests that call it without the SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from support.images import encode, random_image
from support.raw_selections import chunks_of
from topb.v1 import selection_pb2, selection_pb2_grpc

Request = selection_pb2.SelectBatchFromStreamRequest
Spec = selection_pb2.SelectionSpec
Stub = selection_pb2_grpc.SelectionServiceStub
START = Request(start=selection_pb2.StreamStart(spec=Spec(budget=2)))


def refusal(call: Iterator[object]) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return code_and_reason(caught.value)


def code_and_reason(error: BaseException | None) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason of a call's error."""
    assert isinstance(error, grpc.Call)
    info = _detail(error, 0, error_details_pb2.ErrorInfo())
    assert info.domain == "topb"
    return error.code(), info.reason


def retry_seconds(error: BaseException | None) -> float:
    """Return the retry delay in seconds that a call's error asks for."""
    return _detail(error, 1, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds()


def _detail(error: BaseException | None, index: int, message: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.details[index].Unpack(message)
    return message


def encoded_chunk(seq: int, *, ids: Sequence[str] = ("a",), crc32: int | None = None) -> Request:
    (chunk,) = chunks_of([(id_, encode(random_image(row))) for row, id_ in enumerate(ids)], len(ids))
    chunk.seq = seq
    if crc32 is not None:
        chunk.crc32 = crc32
    return Request(chunk=chunk)


def end(chunks: int) -> Request:
    return Request(end=selection_pb2.StreamEnd(chunks=chunks))


def slow_rows(started: threading.Event, seconds: float = 1.0) -> Iterator[tuple[str, bytes]]:
    """Set the event, and yield the rows of a pool slowly."""
    started.set()
    image = encode(random_image(0))
    for row in range(round(seconds / 0.01)):
        yield f"row-{row}", image
        time.sleep(0.01)
