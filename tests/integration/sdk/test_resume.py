"""Selections whose server goes away, by a client of either kind."""

from __future__ import annotations

import time

import grpc
import pytest

import topb
from support.scripted_server import (
    CHUNK,
    CHUNKS,
    POOL,
    QUICK_RETRY,
    StreamServer,
    abort,
    error_details,
    whole_answer,
)
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse
POINTS = [(what, seq) for what in ("committed", "received") for seq in range(CHUNKS)]


def test_a_stream_that_breaks_at_every_chunk_continues_while_chunks_arrive(server, new_client):
    breaks = [*POINTS, ("end", 0), ("summary", 0)]
    stream = server.select_batch_from_stream = StreamServer(
        breaks, max_chunk_bytes=CHUNK, window=1, pick_count=5
    )
    with new_client(server.address, retry=QUICK_RETRY) as client:
        result = client.select_batch(iter(POOL), 5)
    assert stream.rows == POOL
    assert len(stream.starts) == len(breaks) + 1
    assert {start.request_id for start in stream.starts} == {stream.starts[0].request_id}
    assert len(result.picks) == 5


def test_a_stream_without_progress_ends_with_the_error(server, new_client):
    # Chunk 0 arrives with the first attempt, which therefore counts.
    stream = server.select_batch_from_stream = StreamServer([("received", 1)] * 100, max_chunk_bytes=CHUNK)
    with (
        new_client(server.address, retry=QUICK_RETRY) as client,
        pytest.raises(topb.ServerUnavailableError) as caught,
    ):
        client.select_batch(iter(POOL), 5)
    assert caught.value.reason == "SERVER_DRAINING"
    assert len(stream.starts) == QUICK_RETRY.attempts


def test_no_row_is_taken_from_a_pool_that_the_server_has(server, new_client):
    stream = server.select_batch_from_stream = StreamServer(pick_count=3)
    stream.end = selection_pb2.StreamEnd(chunks=7)
    pool = iter(POOL)
    with new_client(server.address) as client:
        result = client.select_batch(pool, 3, request_id="r")
    assert stream.starts[0].request_id == "r"
    assert result.ids == ("image-1", "image-2", "image-3")
    assert list(pool) == POOL


def unavailable(_request, context):
    abort(context, grpc.StatusCode.UNAVAILABLE, "shutting down", error_details("SERVER_DRAINING"))


def test_a_served_selection_is_requested_again_under_the_same_id(server, new_client):
    requests = []

    def serve(request, context):
        requests.append(request)
        yield Response(started=selection_pb2.SelectionStarted(selection="s-1"))
        yield Response(progress=selection_pb2.SelectionProgress(read=[50, 20, 70][len(requests) - 1]))
        answer = whole_answer(Response, pick_count=6)
        if len(requests) < 3:
            yield from answer[: len(requests)]
            unavailable(request, context)
        yield from answer

    server.select_batch = serve
    seen = []
    with new_client(server.address, retry=QUICK_RETRY) as client:
        result = client.select_batch("/p", 6, progress=seen.append)
    assert requests == [requests[0]] * 3
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 7))
    assert result.selection == "s-1"
    assert [progress.read for progress in seen] == [50, 70]


def test_only_calls_about_selections_to_a_server_that_is_unavailable_are_retried(server, new_client):
    def fail(_request, context):
        abort(context, grpc.StatusCode.ABORTED, "no")

    server.select_batch = server.select_batch_from_stream = server.get_selection = fail
    server.get_server_info = unavailable
    with new_client(server.address, retry=QUICK_RETRY) as client:
        for call in (
            lambda: client.select_batch("/p", 1),
            lambda: client.select_batch(iter(POOL), 1),
            lambda: client.submit("/p", 1),
            lambda: client.selection("s-1"),
            client.server_info,
        ):
            with pytest.raises(topb.TopbError):
                call()
    assert len(server.timeouts) == 5


def test_attempts_share_one_deadline(server, new_client):
    server.select_batch = unavailable
    retry = topb.RetryPolicy(attempts=5, initial_delay=0.1, maximum_delay=0.1)
    with new_client(server.address, retry=retry) as client, pytest.raises(topb.ServerUnavailableError):
        client.select_batch("/p", 1, timeout=5)
    assert len(server.timeouts) == retry.attempts
    # gRPC rounds timeouts up, by less than the delays.
    assert server.timeouts[-1] < server.timeouts[0] - 0.05


def test_a_server_that_gives_way_is_called_again_once_a_chunk_is_full(server):
    """The policy allows no second attempt: giving way is no failure."""
    stream = StreamServer(max_chunk_bytes=CHUNK)

    def give_way(requests, context):
        stream.starts.append(next(requests).start)
        server.select_batch_from_stream = stream
        accepted = selection_pb2.StreamAccepted(window=4, max_chunk_bytes=CHUNK)
        yield selection_pb2.SelectBatchFromStreamResponse(accepted=accepted)
        abort(context, grpc.StatusCode.UNAVAILABLE, "idle", error_details("STREAM_IDLE", retry_delay=0.0))

    def slow_rows():
        assert server.ended.wait(10)
        for row in POOL:
            # The end of the call arrives before the first chunk is full.
            time.sleep(0.2)
            yield row

    server.select_batch_from_stream = give_way
    # The rows block the event loop of an asynchronous client, which could not see the end of the call.
    with topb.Client(server.address, retry=topb.RetryPolicy(attempts=1)) as client:
        client.select_batch(slow_rows(), 1)
    assert stream.rows == POOL
    assert len({start.request_id for start in stream.starts}) == 1
    assert len(stream.starts) == 2
