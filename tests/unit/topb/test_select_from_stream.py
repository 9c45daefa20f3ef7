from __future__ import annotations

import itertools
import threading
import time
import uuid

import grpc
import numpy as np
import pytest

import topb
from topb.v1 import selection_pb2

Response = selection_pb2.SelectBatchFromStreamResponse
CHUNK = 1000


def encoded(count, size=100):
    return [(f"image-{row}", bytes([row % 256]) * size) for row in range(count)]


def accepted(window=4, max_chunk_bytes=CHUNK):
    return Response(
        accepted=selection_pb2.StreamAccepted(model="m", window=window, max_chunk_bytes=max_chunk_bytes)
    )


@pytest.fixture
def no_thread_is_left():
    yield
    for _ in range(100):
        left = [thread.name for thread in threading.enumerate() if thread.name == "topb-events"]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail("a thread of the client is still alive")


pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("no_thread_is_left")]


def test_the_whole_pool_arrives_and_the_result_comes_back(server, script):
    stream = server.select_batch_from_stream = script.StreamServer(pick_count=5, max_chunk_bytes=CHUNK)
    pool = encoded(300)
    with topb.Client(server.address) as client:
        result = client.select_batch(
            iter(pool), 5, strategy="margin", model="m", seed=3, exclude=["a", 7], strategy_options={"k": "v"}
        )
    assert stream.rows == pool
    assert len(stream.chunks) > 20
    assert stream.end.chunks == len(stream.chunks)
    assert uuid.UUID(stream.start.request_id)
    assert stream.start.spec == selection_pb2.SelectionSpec(
        budget=5,
        strategy="margin",
        model="m",
        seed=3,
        exclude=selection_pb2.Exclusion(ids=["a", "7"]),
        strategy_options={"k": "v"},
    )
    assert result.ids == ("image-1", "image-2", "image-3", "image-4", "image-5")
    assert [pick.rank for pick in result.picks] == [1, 2, 3, 4, 5]
    assert result.accounts == topb.Accounts(read=300, scored=300)
    assert (result.model, result.strategy, result.seed, result.budget) == (script.MODEL, "aalu", 7, 5)
    assert result.elapsed_seconds == 1.5


def test_arrays_arrive_as_they_are(server, script):
    stream = server.select_batch_from_stream = script.StreamServer()
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (8, 6, 3), np.uint8) for _ in range(50)]
    with topb.Client(server.address) as client:
        client.select_batch(enumerate(arrays), 1)
    assert stream.rows == [(str(row), array.tobytes()) for row, array in enumerate(arrays)]


def test_an_empty_pool_sends_no_chunk(server, script):
    stream = server.select_batch_from_stream = script.StreamServer()
    with topb.Client(server.address) as client:
        result = client.select_batch([], 5)
    assert stream.chunks == []
    assert stream.end == selection_pb2.StreamEnd(chunks=0)
    assert result.picks == ()


def test_a_slow_server_slows_the_callers_iterable(server, script):
    window, rows_a_chunk = 3, 9
    taken = 0
    furthest_ahead = 0

    def pool():
        nonlocal taken
        for row in range(400):
            taken += 1
            yield f"{row:03}", b"x" * 100

    class Slow(script.StreamServer):
        def before_acknowledging(self, chunk):
            nonlocal furthest_ahead
            time.sleep(0.02)
            furthest_ahead = max(furthest_ahead, taken - (len(self.rows) - len(chunk.ids)))

    stream = server.select_batch_from_stream = Slow(window=window, max_chunk_bytes=CHUNK)
    with topb.Client(server.address) as client:
        client.select_batch(pool(), 1)
    assert {len(chunk.ids) for chunk in stream.chunks[:-1]} == {rows_a_chunk}
    # Under way: a window of chunks; in hand: one chunk, closed, and the row that closed it.
    assert window * rows_a_chunk <= furthest_ahead <= (window + 1) * rows_a_chunk + 1


def test_a_stalled_server_never_has_more_than_the_window_unacknowledged(server, script):
    window = 2
    stalled, released = threading.Event(), threading.Event()
    received = []

    def serve(requests, context):
        next(requests)
        yield Response(accepted=selection_pb2.StreamAccepted(model="m", window=window, max_chunk_bytes=CHUNK))
        arrived = threading.Event()

        def receive():
            for request in requests:
                received.append(request)
                if len(received) == window:
                    arrived.set()

        reader = threading.Thread(target=receive)
        reader.start()
        assert arrived.wait(5)
        assert not released.wait(0.2)
        stalled.set()
        assert len(received) == window
        yield Response(acknowledged=selection_pb2.ChunkAcknowledged(seq=1))
        for _ in range(100):
            if len(received) == window + 1:
                break
            time.sleep(0.01)
        assert len(received) == window + 1
        script.abort(context, grpc.StatusCode.DATA_LOSS, "seen enough")

    server.select_batch_from_stream = serve
    with topb.Client(server.address) as client, pytest.raises(topb.ServerError, match="seen enough"):
        client.select_batch(encoded(1000), 1)
    assert stalled.is_set()


def test_nothing_is_taken_from_the_pool_before_the_server_accepts(server, script):
    server.select_batch_from_stream = lambda _requests, context: script.abort(
        context, grpc.StatusCode.NOT_FOUND, "no such model"
    )
    pool = iter(encoded(3))
    with topb.Client(server.address) as client, pytest.raises(topb.NotFoundError):
        client.select_batch(pool, 1, model="x")
    assert len(list(pool)) == 3


def test_an_error_of_the_server_stops_an_endless_pool(server, script):
    class Failing(script.StreamServer):
        def __call__(self, requests, context):
            for event, _ in zip(super().__call__(requests, context), range(5), strict=False):
                yield event
            script.abort(
                context, grpc.StatusCode.INVALID_ARGUMENT, "chunk 2 is torn", script.error_details("CHECKSUM")
            )

    server.select_batch_from_stream = Failing(max_chunk_bytes=CHUNK)
    pool = ((str(row), b"x" * 100) for row in itertools.count())
    with topb.Client(server.address) as client, pytest.raises(topb.InvalidRequestError) as caught:
        client.select_batch(pool, 1)
    assert caught.value.reason == "CHECKSUM"


def test_an_error_of_the_server_is_noticed_before_the_next_chunk_is_full(server, script):
    def serve(requests, context):
        next(requests)
        yield accepted(max_chunk_bytes=2**20)
        script.abort(context, grpc.StatusCode.UNAVAILABLE, "going away", script.error_details("DRAINING"))

    def slow_rows():
        for row in itertools.count():
            time.sleep(0.005)
            yield row, b"x"

    server.select_batch_from_stream = serve
    with (
        topb.Client(server.address, retry=None) as client,
        pytest.raises(topb.ServerUnavailableError) as caught,
    ):
        client.select_batch(slow_rows(), 1)
    assert caught.value.reason == "DRAINING"


def test_streams_that_ended_however_leave_no_thread(server, script):
    server.select_batch_from_stream = lambda requests, context: script.StreamServer()(requests, context)
    with topb.Client(server.address) as client:
        client.select_batch(encoded(3), 1)
        before = threading.active_count()
        for _ in range(10):
            client.select_batch(encoded(3), 1)
            with pytest.raises(topb.InvalidRequestError):
                client.select_batch(["no row"], 1)
        # The server in this process may have started its remaining three workers.
        for _ in range(100):
            if threading.active_count() <= before + 3:
                return
            time.sleep(0.02)
    pytest.fail(f"{threading.active_count() - before} threads more than before")


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [OwnError("mine"), KeyboardInterrupt(), grpc.RpcError("of another service")]
)
def test_what_the_callers_iterable_raises_comes_out_unchanged_and_cancels(server, error):
    cancelled = threading.Event()

    def serve(requests, context):
        context.add_callback(cancelled.set)
        next(requests)
        yield accepted(window=100)
        while context.is_active():
            time.sleep(0.01)

    def pool():
        yield from encoded(50)
        raise error

    server.select_batch_from_stream = serve
    with topb.Client(server.address) as client:
        with pytest.raises(type(error)) as caught:
            client.select_batch(pool(), 1)
        assert caught.value is error
        assert cancelled.wait(5)


def test_the_callers_iterable_and_callback_run_on_the_callers_thread(server, script):
    server.select_batch_from_stream = script.StreamServer(max_chunk_bytes=CHUNK)
    threads = set()

    def pool():
        for row in encoded(100):
            threads.add(threading.get_ident())
            yield row

    with topb.Client(server.address) as client:
        client.select_batch(pool(), 1, progress=lambda _progress: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_progress_is_reported(server, script):
    server.select_batch_from_stream = script.StreamServer(max_chunk_bytes=CHUNK)
    seen = []
    with topb.Client(server.address) as client:
        client.select_batch(encoded(100), 1, progress=seen.append)
    assert seen[-1] == topb.Progress(read=100, total=0, elapsed_seconds=0.0)
    assert [progress.read for progress in seen] == sorted(progress.read for progress in seen)


def test_what_the_progress_callback_raises_comes_out_and_cancels(server, script):
    stream = server.select_batch_from_stream = script.StreamServer(max_chunk_bytes=CHUNK)
    with topb.Client(server.address) as client, pytest.raises(OwnError):
        client.select_batch(
            encoded(10_000), 1, progress=lambda _progress: (_ for _ in ()).throw(OwnError("mine"))
        )
    assert stream.end is None


def test_a_row_that_is_none_cancels_and_is_named(server, script):
    stream = server.select_batch_from_stream = script.StreamServer()
    with topb.Client(server.address) as client, pytest.raises(topb.InvalidRequestError, match="row 1"):
        client.select_batch([("a", b"x"), ("b", "path.jpg")], 1)
    assert stream.chunks == []


def test_an_image_over_the_servers_limit_is_refused_before_it_is_sent(server, script):
    stream = server.select_batch_from_stream = script.StreamServer(max_chunk_bytes=CHUNK)
    with topb.Client(server.address) as client, pytest.raises(topb.LimitExceededError, match="row 0"):
        client.select_batch([("a", b"x" * (CHUNK + 1))], 1)
    assert stream.chunks == []


def test_a_deadline_ends_a_stalled_stream(server):
    def stall(requests, context):
        next(requests)
        yield Response(accepted=selection_pb2.StreamAccepted(model="m", window=1, max_chunk_bytes=CHUNK))
        while context.is_active():
            time.sleep(0.01)

    server.select_batch_from_stream = stall
    begun = time.monotonic()
    with topb.Client(server.address) as client, pytest.raises(topb.DeadlineExceededError, match=r"0\.3 s"):
        client.select_batch(encoded(1000), 1, timeout=0.3)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "before it had the whole pool"),
        ([accepted()], "before it had the whole pool"),
        ([accepted(), accepted()], "accepted the stream twice"),
        ([accepted(window=0)], "at least one of each"),
        ([accepted(max_chunk_bytes=0)], "at least one of each"),
        (
            [accepted(), Response(acknowledged=selection_pb2.ChunkAcknowledged(seq=99))],
            "acknowledged chunk 99, which was not sent",
        ),
        ([accepted(), Response(picks=selection_pb2.PickPage(picks=[{"rank": 1}]))], "before the summary"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_protocol_error(server, events, said):
    def serve(requests, context):
        next(requests)
        yield from events

    server.select_batch_from_stream = serve
    pool = ((str(row), b"x" * 100) for row in itertools.count())
    with topb.Client(server.address) as client, pytest.raises(topb.ProtocolError, match=said):
        client.select_batch(pool, 1)


def test_rows_that_are_not_accounted_for_are_a_protocol_error(server, script):
    server.select_batch_from_stream = script.StreamServer(lost_rows=1)
    with topb.Client(server.address) as client, pytest.raises(topb.ProtocolError, match=r"3 rows.*for 2"):
        client.select_batch(encoded(3), 1)


def test_two_streams_share_a_client(server, script):
    server.select_batch_from_stream = lambda requests, context: script.StreamServer(
        pick_count=2, max_chunk_bytes=CHUNK
    )(requests, context)
    results = []
    with topb.Client(server.address) as client:
        threads = [
            threading.Thread(target=lambda: results.append(client.select_batch(encoded(200), 2)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [result.ids for result in results] == [("image-1", "image-2")] * 2


@pytest.mark.parametrize("pool", [b"bytes", 17, None, {"a": b"x"}])
def test_a_pool_that_is_none_is_refused(pool):
    with (
        topb.Client("127.0.0.1:1") as client,
        pytest.raises(topb.InvalidRequestError, match="pool is of type"),
    ):
        client.select_batch(pool, 1)


def test_the_layout_of_a_served_pool_is_refused_for_a_streamed_one():
    with topb.Client("127.0.0.1:1") as client, pytest.raises(topb.InvalidRequestError, match="detached"):
        client.select_batch([("a", b"x")], 1, detached=True)


def test_an_asynchronous_pool_is_refused_by_a_blocking_client():
    async def pool():
        yield "a", b"x"

    with (
        topb.Client("127.0.0.1:1") as client,
        pytest.raises(topb.InvalidRequestError, match="async_generator"),
    ):
        client.select_batch(pool(), 1)
