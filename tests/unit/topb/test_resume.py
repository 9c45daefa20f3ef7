"""Selections whose server goes away, with a client of either kind."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

import topb
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse
CHUNK = 1000
CHUNKS = 4
QUICK = topb.RetryPolicy(attempts=3, initial_delay=0.001, maximum_delay=0.002)
POOL = [(f"image-{row:02}", bytes([row]) * 200) for row in range(14)]
POINTS = [
    ("accepted", 0),
    *((what, seq) for seq in range(CHUNKS) for what in ("received", "committed", "acknowledged")),
    ("end", 0),
    ("summary", 0),
]


@pytest.mark.parametrize("point", POINTS)
def test_a_broken_stream_resumes_and_sends_no_chunk_again_that_the_server_has(
    server, script, new_client, point
):
    undisturbed = server.select_batch_from_stream = script.BreakingStreamServer(
        [], max_chunk_bytes=CHUNK, pick_count=5
    )
    with new_client(server.address, retry=QUICK) as client:
        expected = client.select_batch(iter(POOL), 5)
    assert len(undisturbed.chunks) == CHUNKS

    stream = server.select_batch_from_stream = script.BreakingStreamServer(
        [point], max_chunk_bytes=CHUNK, pick_count=5
    )
    with new_client(server.address, retry=QUICK) as client:
        result = client.select_batch(iter(POOL), 5)
    assert result == expected
    assert result.selection == "s-1"
    assert stream.breaks == []
    assert stream.rows == POOL
    first, second = stream.starts
    assert first == second
    # Only the chunk that came and was not committed comes again.
    again = [point[1]] if point[0] == "received" else []
    assert sorted(stream.sent) == sorted([*range(CHUNKS), *again])


def test_a_stream_that_breaks_at_every_chunk_goes_on_as_long_as_chunks_get_through(
    server, script, new_client
):
    breaks = [("committed", seq) for seq in range(CHUNKS)] + [("received", seq) for seq in range(CHUNKS)]
    stream = server.select_batch_from_stream = script.BreakingStreamServer(
        breaks, max_chunk_bytes=CHUNK, window=1
    )
    with new_client(server.address, retry=QUICK) as client:
        client.select_batch(iter(POOL), 5)
    assert stream.rows == POOL
    assert len(stream.starts) == len(breaks) + 1


def test_a_stream_that_gets_no_further_ends_with_the_error(server, script, new_client):
    stream = server.select_batch_from_stream = script.BreakingStreamServer(
        [("received", 1)] * 100, max_chunk_bytes=CHUNK
    )
    with (
        new_client(server.address, retry=QUICK) as client,
        pytest.raises(topb.ServerUnavailableError) as caught,
    ):
        client.select_batch(iter(POOL), 5)
    assert caught.value.reason == "SERVER_DRAINING"
    # The first try got chunk 0 through; then so many tries, the one that had got further among them.
    assert len(stream.starts) == QUICK.attempts


def test_without_a_policy_nothing_is_tried_again(server, script, new_client):
    stream = server.select_batch_from_stream = script.BreakingStreamServer(
        [("end", 0)], max_chunk_bytes=CHUNK
    )
    with new_client(server.address, retry=None) as client, pytest.raises(topb.ServerUnavailableError):
        client.select_batch(iter(POOL), 5)
    assert len(stream.starts) == 1


@pytest.mark.parametrize("had", range(CHUNKS + 1))
def test_another_process_goes_on_with_the_same_rows(server, script, new_client, had):
    first = server.select_batch_from_stream = script.BreakingStreamServer([], max_chunk_bytes=CHUNK)
    with new_client(server.address, retry=QUICK) as client:
        client.select_batch(iter(POOL), 5, request_id="r")
    second = server.select_batch_from_stream = script.BreakingStreamServer([], max_chunk_bytes=CHUNK)
    second.chunks = first.chunks[:had]
    with new_client(server.address, retry=QUICK) as client:
        result = client.select_batch(iter(POOL), 5, request_id="r")
    assert second.starts[0].request_id == "r"
    assert second.sent == list(range(had, CHUNKS))
    assert second.rows == POOL
    assert result.accounts.read == len(POOL)


def test_of_a_pool_that_the_server_has_no_row_is_taken(server, script, new_client):
    stream = server.select_batch_from_stream = script.BreakingStreamServer([], pick_count=3)
    stream.end = selection_pb2.StreamEnd(chunks=7)
    pool = iter(POOL)
    with new_client(server.address) as client:
        result = client.select_batch(pool, 3, request_id="r")
    assert result.ids == ("image-1", "image-2", "image-3")
    assert list(pool) == POOL


def test_another_pool_than_the_one_it_was_begun_with_is_an_error(server, script, new_client):
    stream = server.select_batch_from_stream = script.BreakingStreamServer([], max_chunk_bytes=CHUNK)
    stream.chunks = [selection_pb2.PoolChunk()] * 5
    with (
        new_client(server.address) as client,
        pytest.raises(topb.InvalidRequestError, match="already has 5") as caught,
    ):
        client.select_batch(iter(POOL), 5, request_id="r")
    assert caught.value.reason == "POOL_CHANGED"


def test_a_server_that_lost_what_it_acknowledged_is_told_of(server, script, new_client):
    class Forgetful(script.BreakingStreamServer):
        def __call__(self, requests, context):
            self.chunks = []
            yield from super().__call__(requests, context)

    server.select_batch_from_stream = Forgetful([("received", 2)], max_chunk_bytes=CHUNK, window=1)
    with (
        new_client(server.address, retry=QUICK) as client,
        pytest.raises(topb.ProtocolError, match="has lost chunk 0") as caught,
    ):
        client.select_batch(iter(POOL), 5)
    assert caught.value.reason == "ACKNOWLEDGED_CHUNK_LOST"


def test_the_servers_own_delay_is_honoured(server, script, new_client):
    server.select_batch_from_stream = script.BreakingStreamServer([("committed", 0)], retry_delay=0.4)
    begun = time.monotonic()
    with new_client(server.address, retry=QUICK) as client:
        client.select_batch(iter(POOL), 5)
    assert 0.4 <= time.monotonic() - begun < 5


def unavailable(script, context, retry_delay=None):
    details = script.error_details("SERVER_DRAINING", retry_delay=retry_delay)
    script.abort(context, grpc.StatusCode.UNAVAILABLE, "going away", details)


def test_a_served_selection_is_asked_for_again_under_the_same_id(server, script, new_client):
    requests = []

    def serve(request, context):
        requests.append(request)
        yield Response(started=selection_pb2.SelectionStarted(selection="s-1"))
        yield Response(progress=selection_pb2.SelectionProgress(read=[50, 20, 70][len(requests) - 1]))
        answer = script.whole_answer(Response, pick_count=6)
        if len(requests) < 3:
            yield from answer[: len(requests)]
            unavailable(script, context)
        yield from answer

    server.select_batch = serve
    seen = []
    with new_client(server.address, retry=QUICK) as client:
        result = client.select_batch("/p", 6, progress=seen.append)
    assert requests == [requests[0]] * 3
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 7))
    assert result.selection == "s-1"
    assert [progress.read for progress in seen] == [50, 70]


OTHER_CODES = [
    code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
]


@pytest.mark.parametrize("code", OTHER_CODES, ids=lambda code: code.name)
def test_no_other_error_leads_to_another_try(server, script, new_client, code):
    tries = []

    def fail(request, context):
        tries.append(request)
        script.abort(context, code, "no")

    server.select_batch = server.select_batch_from_stream = server.get_selection = fail
    with new_client(server.address, retry=QUICK) as client:
        for call in (
            lambda: client.select_batch("/p", 1),
            lambda: client.select_batch(iter(POOL), 1),
            lambda: client.submit("/p", 1),
            lambda: client.selection("s-1"),
        ):
            with pytest.raises(topb.TopbError):
                call()
    assert len(tries) == 4


def test_tries_stop_at_the_deadline(server, script, new_client):
    tries = []

    def fail(request, context):
        tries.append(time.monotonic())
        unavailable(script, context)

    server.select_batch = fail
    policy = topb.RetryPolicy(attempts=1000, initial_delay=0.05, maximum_delay=0.05)
    begun = time.monotonic()
    with new_client(server.address, retry=policy) as client, pytest.raises(topb.ServerUnavailableError):
        client.select_batch("/p", 1, timeout=0.6)
    assert time.monotonic() - begun < 2
    assert 5 < len(tries) < 30
    assert server.timeouts == sorted(server.timeouts, reverse=True)


def test_a_delay_beyond_the_deadline_is_not_waited_for(server, script, new_client):
    server.select_batch = lambda _request, context: unavailable(script, context, retry_delay=60)
    begun = time.monotonic()
    with new_client(server.address) as client, pytest.raises(topb.ServerUnavailableError) as caught:
        client.select_batch("/p", 1, timeout=5)
    assert caught.value.retry_delay == 60
    assert time.monotonic() - begun < 3


def test_a_server_that_comes_later_is_found(server, script, new_client):
    server.stop()
    later: list = []

    def start():
        later.append(script.ScriptedServer(server.port))
        later[0].select_batch = lambda _request, _context: script.whole_answer(Response)

    starter = threading.Timer(0.5, start)
    starter.start()
    with new_client(server.address) as client:
        assert len(client.select_batch("/p", 3).picks) == 3
    starter.join()
    later[0].stop()


def test_an_error_of_that_kind_by_the_callers_own_code_is_not_the_servers(server, script, new_client):
    stream = server.select_batch_from_stream = script.BreakingStreamServer([])
    tries = []

    def serve(request, context):
        tries.append(request)
        yield Response(progress=selection_pb2.SelectionProgress(read=5))
        yield from script.whole_answer(Response)

    own = topb.ServerUnavailableError("another server", reason="MINE")

    def pool():
        yield "a", b"x"
        raise own

    def callback(_progress):
        raise own

    server.select_batch = serve
    with new_client(server.address, retry=QUICK) as client:
        with pytest.raises(topb.ServerUnavailableError) as caught:
            client.select_batch(pool(), 1)
        assert caught.value is own
        with pytest.raises(topb.ServerUnavailableError) as caught:
            client.select_batch("/p", 1, progress=callback)
        assert caught.value is own
    assert len(stream.starts) == len(tries) == 1


def test_a_client_that_is_closed_between_two_tries_gives_up(server, script):
    server.select_batch = lambda _request, context: unavailable(script, context, retry_delay=30)
    client = topb.Client(server.address)
    closer = threading.Timer(0.3, client.close)
    closer.start()
    begun = time.monotonic()
    with pytest.raises(topb.RequestCancelledError):
        client.select_batch("/p", 1)
    closer.join()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "policy", [{"attempts": 0}, {"initial_delay": -1.0}, {"initial_delay": 9.0, "maximum_delay": 1.0}]
)
def test_a_policy_that_makes_no_sense_is_refused(policy):
    with pytest.raises(topb.InvalidRequestError, match="attempts of at least 1"):
        topb.RetryPolicy(**policy)
