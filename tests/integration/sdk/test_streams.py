"""Pools that the caller sends, by a client of either kind."""

from __future__ import annotations

import itertools
import threading
import uuid

import grpc
import pytest

import topb
from support.scripted_server import CHUNK, MODEL, StreamServer, abort, error_details, stall
from support.waiting import once
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchFromStreamResponse


def encoded(count, size=100):
    return [(f"image-{row}", bytes([row % 256]) * size) for row in range(count)]


def endless():
    return ((str(row), b"x" * 100) for row in itertools.count())


def accepted(max_chunk_bytes):
    return Response(accepted=selection_pb2.StreamAccepted(window=4, max_chunk_bytes=max_chunk_bytes))


def test_a_streamed_pool_arrives_whole_and_its_result_is_returned(server, new_client):
    stream = server.select_batch_from_stream = StreamServer(pick_count=5, max_chunk_bytes=CHUNK)
    pool = encoded(300)
    seen = []
    with new_client(server.address) as client:
        result = client.select_batch(iter(pool), 5, strategy="margin", seed=3, progress=seen.append)
    assert stream.rows == pool
    assert len(stream.chunks) > 20
    assert stream.end.chunks == len(stream.chunks)
    assert uuid.UUID(stream.starts[0].request_id)
    assert stream.starts[0].spec == selection_pb2.SelectionSpec(budget=5, strategy="margin", seed=3)
    assert result.ids == ("image-1", "image-2", "image-3", "image-4", "image-5")
    assert result.accounts == topb.Accounts(read=300, scored=300)
    assert result.model == MODEL
    assert seen[-1] == topb.Progress(read=300, total=0, elapsed_seconds=0.0)


def test_the_progress_of_a_sized_pool_has_its_total(server, new_client):
    server.select_batch_from_stream = StreamServer(pick_count=5, max_chunk_bytes=CHUNK)
    seen = []
    with new_client(server.address) as client:
        client.select_batch(encoded(300), 5, progress=seen.append)
    assert seen[-1].total == 300


def test_an_error_of_the_server_is_raised_before_the_next_chunk_is_full(server, new_client):
    def serve(requests, context):
        next(requests)
        yield accepted(2**20)
        abort(context, grpc.StatusCode.DATA_LOSS, "failed", error_details("FAILED"))

    taken = 0

    def rows():
        nonlocal taken
        for taken in itertools.count():
            yield taken, b""
            server.ended.wait(5)

    server.select_batch_from_stream = serve
    with new_client(server.address) as client, pytest.raises(topb.ServerError) as caught:
        client.select_batch(rows(), 1)
    assert caught.value.reason == "FAILED"
    assert taken < 100_000  # a chunk of 1 MiB holds more


def test_a_stream_that_ends_too_early_is_a_protocol_error(server, new_client):
    server.select_batch_from_stream = [accepted(CHUNK)]
    with new_client(server.address) as client, pytest.raises(topb.ProtocolError) as caught:
        client.select_batch(endless(), 1)
    assert caught.value.reason == "RESULT_INCOMPLETE"


OWN_ERRORS = [
    ZeroDivisionError(),
    grpc.RpcError("of another service"),
    topb.ServerUnavailableError("another server", reason="MINE"),
]


def report_and_stall(request, context):
    yield selection_pb2.SelectBatchResponse(progress=selection_pb2.SelectionProgress(read=5))
    yield from stall(request, context)


def raising(error):
    raise error


def select(client, error, where):
    def pool():
        yield from encoded(50)
        if where == "pool":
            raise error
        yield from endless()

    progress = None if where == "pool" else lambda _progress: raising(error)
    client.select_batch("/p" if where == "progress of a served pool" else pool(), 1, progress=progress)


WHERE = pytest.mark.parametrize("where", ["pool", "progress", "progress of a served pool"])


@WHERE
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_of_the_callers_code_propagates_and_cancels_the_call(server, new_client, error, where):
    server.select_batch = report_and_stall
    server.select_batch_from_stream = StreamServer(max_chunk_bytes=CHUNK)
    with new_client(server.address) as client:
        with pytest.raises(type(error)) as caught:
            select(client, error, where)
        assert caught.value is error
        assert server.ended.wait(5)
    assert len(server.timeouts) == 1


@WHERE
def test_a_keyboard_interrupt_propagates_and_cancels_the_call(server, where):
    server.select_batch = report_and_stall
    server.select_batch_from_stream = StreamServer(max_chunk_bytes=CHUNK)
    with topb.Client(server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            select(client, KeyboardInterrupt(), where)
        assert server.ended.wait(5)


def test_the_callers_iterable_and_callback_run_on_the_callers_thread(server, new_client):
    server.select_batch_from_stream = StreamServer(max_chunk_bytes=CHUNK)
    threads = set()

    def pool():
        for row in encoded(100):
            threads.add(threading.get_ident())
            yield row

    with new_client(server.address) as client:
        client.select_batch(pool(), 1, progress=lambda _progress: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_the_callers_generator_is_not_closed(server, new_client):
    server.select_batch_from_stream = StreamServer(max_chunk_bytes=CHUNK)
    pool = endless()
    with new_client(server.address) as client, pytest.raises(ZeroDivisionError):
        client.select_batch(pool, 1, progress=lambda _progress: raising(ZeroDivisionError()))
    assert int(next(pool)[0]) > 0


def test_finished_streams_leave_no_thread_running(server):
    server.select_batch_from_stream = lambda requests, context: StreamServer()(requests, context)
    with topb.Client(server.address) as client:
        client.select_batch(encoded(3), 1)
        before = threading.active_count()
        for _ in range(10):
            client.select_batch(encoded(3), 1)
            with pytest.raises(topb.InvalidRequestError):
                client.select_batch(["no row"], 1)
        # The server in this process may have started its remaining three workers.
        once(lambda: threading.active_count() <= before + 3)
